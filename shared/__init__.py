"""What every process speaks: a pure half (errors, money, events) and a framework half (rpc, messaging, database)."""

import warnings

# Eventlet says at each import that it is in maintenance; docs/decisions says why we stay with it.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
