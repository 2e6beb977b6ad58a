"""A payment platform over real HTTP, with faults on demand: it is asked, it calls back, it has statements.

`python -m simulators.payment_platform` serves it on loopback (environment: PORT, BIND, PAYMENT_PLATFORM_SECRET). It
plays as many platforms as it is asked to be: each is an account, and stands under `/<account>/…`. What a test or a
person calls stands under `/control/…`, see `control.py`. How a platform and we speak is described in docs/channels.md.
"""

from simulators.payment_platform.server import SIMULATED_SECRET, RunningPlatform, running_platform

__all__ = ["SIMULATED_SECRET", "RunningPlatform", "running_platform"]
