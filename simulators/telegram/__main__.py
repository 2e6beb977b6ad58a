"""Serve the emulator in the foreground until a signal ends it."""

import os
import signal
import sys
import threading

from simulators.telegram.server import SIMULATED_TOKEN, start_simulator

PORT_DEFAULT = 8081


def main() -> int:
    """Serve on 127.0.0.1:PORT; SIGTERM and SIGINT end it."""
    token = os.environ.get("TELEGRAM_BOT_TOKEN") or SIMULATED_TOKEN
    simulator = start_simulator(int(os.environ.get("PORT", PORT_DEFAULT)), token)
    print(f"Telegram simulator on {simulator.url}, control API on {simulator.url}/control/", flush=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    simulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
