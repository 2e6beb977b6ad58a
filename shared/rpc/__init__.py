"""Calls between processes over RabbitMQ: sealed, with passport, deadline and idempotency key.

`entrypoints` is what a service declares itself with, `client` is what everybody calls with, `server` and `wire`
are nobody's business but theirs.
"""
