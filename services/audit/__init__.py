"""Audit owns the log: what was done, called, broken and changed, row by row in a hash chain that only grows.

RPC: list_logs, get_log, log_stats, summarize_actions_of_actors, verify_chain.
Emits: nothing. Hears: every event of every service and of the gateway.
"""
