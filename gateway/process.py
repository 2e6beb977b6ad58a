"""What lives as long as a gateway process: its client of the bus, its recorder, its application."""

import logging
import os
from collections.abc import Callable, Iterable

from flask import Flask

from gateway.app import create_app
from gateway.blueprint import Blueprint
from gateway.configuration import from_environment
from gateway.records import Recorder
from gateway.spool import Spool
from shared.logs import set_up_logs
from shared.publishing import ConfirmedPublisher
from shared.rpc.client import RpcClient

_at_stop: list[Callable[[], None]] = []


def start(*, further: Iterable[Blueprint] = ()) -> Flask:
    """Connect to the bus and return the application.

    further: blueprints beside those of `gateway/api`, as the benchmark has them.
    """
    configuration = from_environment()
    set_up_logs(service="gateway", instance=configuration.instance, level=os.environ.get("LOG_LEVEL", "INFO"))
    _adopt_log("gunicorn.error")
    client = RpcClient(configuration.amqp_url, configuration.passport_keys, name=configuration.instance).start()
    publisher = ConfirmedPublisher(configuration.amqp_url, name=f"{configuration.instance}-records")
    publisher.start()
    recorder = Recorder(Spool(configuration.spool_dir), publisher)
    recorder.start()
    _at_stop.extend([recorder.stop, publisher.stop, client.stop])
    return create_app(configuration, client=client, recorder=recorder, further=further)


def _adopt_log(name: str) -> None:
    """Let a library's log go our way, so that it is masked like all others."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True


def stop() -> None:
    """Let go of everything, records first: they still need the bus."""
    while _at_stop:
        _at_stop.pop(0)()
