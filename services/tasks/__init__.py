"""Tasks: what runs by a schedule or by hand, its slots, its runs, what they wrote.

Owns: tasks, task_runs, task_run_logs.
RPC: list_tasks, get_task, update_task, enable_task, disable_task, preview_schedule, run_task, list_task_runs,
get_task_run, list_task_run_logs, cancel_task_run. Calls: ledger.verify_ledger.
Emits: TaskUpdated, TaskEnabled, TaskDisabled, TaskRunRequested, TaskRunStarted, TaskRunSucceeded, TaskRunFailed,
TaskRunCancelled.
Hears: nothing.
"""
