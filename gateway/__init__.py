"""The HTTP edge: authenticates, checks shapes and permissions, calls services over the bus, decides nothing itself.

`app.py` puts it together; `api/<noun>.py` holds the routes and `schemas/<noun>.py` their shapes. Knows no service's
code, no database and no eventlet (docs/decisions/0002-gateway-gevent.md).
"""
