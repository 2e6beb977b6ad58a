"""Logs of every process: one JSON object a line, with the request id, and with every secret masked.

Masking (`shared/masking.py`) is the last step before the line is written, so that no caller can forget it.
Source: RELIABILITY.md R31.
"""

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import structlog

from shared.masking import mask

request_id_var: ContextVar[str] = ContextVar("request_id", default="")


def _masking(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {k: mask(v, k) for k, v in event.items()}


def _with_request_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if request_id := request_id_var.get():
        event.setdefault("request_id", request_id)
    return event


def set_up_logs(*, service: str, instance: str = "", level: str = "INFO") -> None:
    """Send the logs of this process, those of its libraries included, to stderr as masked JSON lines."""

    def with_service(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"], event["instance"] = service, instance
        return event

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _with_request_id,
        with_service,
        structlog.processors.format_exc_info,
    ]
    last: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _masking,
        structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("amqp").setLevel("WARNING")
    logging.getLogger("alembic").setLevel("WARNING")
