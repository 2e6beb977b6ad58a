"""The rules of tasks, without a database or a clock: when a schedule fires, which run follows which."""
