"""Channels for tests: registered by the use case, with secrets that tests know."""

import base64
import secrets
from typing import Any

from sqlalchemy.orm import Session

from services.ledger.cipher import ChannelCipher
from services.ledger.usecases import channels
from shared.passport import Passport
from tests.conftest import person

CIPHER = ChannelCipher(key=b"k" * 32)


def new_secret() -> str:
    """Return a secret as Standard Webhooks writes it."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


SECRET = new_secret()


def register(
    session: Session,
    code: str = "alipay",
    *,
    passport: Passport | None = None,
    kind: str = "statement",
    config: dict[str, Any] | None = None,
    allowed: frozenset[str] = frozenset(),
    **fields: Any,
) -> Any:
    """Register a channel, of statements unless `kind` says otherwise."""
    return channels.create_channel(
        session,
        passport or person("Alice", "administrator", None),
        CIPHER,
        allowed=allowed,
        code=code,
        name=fields.pop("name", code.title()),
        kind=kind,
        config=config,
        **fields,
    )
