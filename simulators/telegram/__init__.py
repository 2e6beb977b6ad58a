"""An emulator of the Telegram Bot API over real HTTP, with faults on demand.

`python -m simulators.telegram` serves it on loopback (environment: PORT, TELEGRAM_BOT_TOKEN). What a bot
calls stands under `/bot<token>/<method>`; what a test or a person calls, under `/control/…`, see `app.py`.
"""

from simulators.telegram.server import SIMULATED_TOKEN, RunningSimulator, running_simulator

__all__ = ["SIMULATED_TOKEN", "RunningSimulator", "running_simulator"]
