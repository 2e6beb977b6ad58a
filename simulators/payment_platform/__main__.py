"""Serve the platform in the foreground until a signal ends it."""

import os
import signal
import sys
import threading

from simulators.payment_platform.server import SIMULATED_SECRET, start_platform

PORT_DEFAULT = 8082


def main() -> int:
    """Serve on BIND:PORT, by default on loopback; SIGTERM and SIGINT end it."""
    secret = os.environ.get("PAYMENT_PLATFORM_SECRET") or SIMULATED_SECRET
    host = os.environ.get("BIND") or "127.0.0.1"
    platform = start_platform(int(os.environ.get("PORT", PORT_DEFAULT)), secret, host=host)
    print(f"Payment platform simulator on {platform.url}, control API on {platform.url}/control/", flush=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    platform.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
