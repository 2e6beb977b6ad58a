"""Logs of every process: one JSON object a line, with the request id, and with every secret masked.

Masking is the last step before the line is written, so that no caller can forget it. Source: RELIABILITY.md R31.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import structlog
from stdnum import luhn

MASK = "***"
request_id_var: ContextVar[str] = ContextVar("request_id", default="")

_SECRET_KEYS = re.compile(
    r"(?i)passw|secret|token|otp|authorization|cookie|api_?key|private_?key|card_?number|(^|_)pan($|_)|recovery_code|cvv"
)
_SECRET_TEXTS = (
    re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]{5,}"),  # JSON web tokens
    re.compile(r"\b\d{6,12}:[\w-]{30,}"),  # a Telegram bot's token
    re.compile(r"\bch[kr]_[\w-]{8,}"),  # our API keys and refresh tokens
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user and password in an address
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"otpauth://\S+"),
)
_LONG_NUMBER = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")


def _masked_number(match: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", match.group())
    return f"{MASK}{digits[-4:]}" if luhn.is_valid(digits) else match.group()


def mask_text(text: str) -> str:
    """Return the text with tokens, keys, passwords in addresses and card numbers masked."""
    for pattern in _SECRET_TEXTS:
        text = pattern.sub(MASK, text)
    return _LONG_NUMBER.sub(_masked_number, text)


def mask(value: Any, key: str = "") -> Any:
    """Return the value with everything secret in it masked, by the name of its key or by its looks."""
    if key and _SECRET_KEYS.search(key) and value not in (None, "", True, False):
        return MASK
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, dict):
        return {k: mask(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [mask(v) for v in value]
    return value


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
