"""Runs one service: `python -m shared.runner services.cards.service:CardsService`.

Everything that must happen before other imports happens here: eventlet's patching, and psycopg's way of waiting.
"""
# ruff: noqa: E402

import os

os.environ.setdefault("PSYCOPG_WAIT_FUNC", "wait_select")  # the C wait would stop the whole service
import eventlet

eventlet.monkey_patch()

import importlib
import signal
import sys
from typing import Any

import structlog
from nameko.runners import ServiceRunner

from shared.config import process_config
from shared.logs import set_up_logs

log = structlog.get_logger(__name__)

GRACE_SECONDS = 28  # a little more than consumers take to drain
OTHER_WORKERS_MAX = 64  # event handlers and ticks, beside the calls


def load(path: str) -> Any:
    """Return the class that `package.module:Class` names."""
    module_name, class_name = path.split(":")
    return getattr(importlib.import_module(module_name), class_name)


def run(path: str) -> None:
    """Run the service until SIGTERM or SIGINT, then finish what is under way."""
    config = process_config()
    set_up_logs(service=config.service, instance=config.instance, level=config.log_level)
    service_class = load(path)
    runner = ServiceRunner({"AMQP_URI": config.amqp_url, "max_workers": config.workers_max + OTHER_WORKERS_MAX})
    runner.add_service(service_class)

    def stop(_signal: int, _frame: Any) -> None:
        eventlet.spawn_after(GRACE_SECONDS, os._exit, 1)
        eventlet.spawn_n(runner.stop)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    runner.start()
    log.info("ready")
    while True:
        try:
            runner.wait()
        except OSError as error:  # a signal interrupts the wait
            if error.errno != 4:
                raise
        else:
            break
    log.info("stopped")
    os._exit(0)  # timers and daemon threads must not hold the process


if __name__ == "__main__":
    run(sys.argv[1])
