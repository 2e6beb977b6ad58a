"""Channels' secrets move from retired keys to the current one while channels are used."""

from collections import Counter

import sqlalchemy as sa
import structlog
from cryptography.exceptions import InvalidTag
from sqlalchemy.orm import Session

from services.ledger.cipher import ChannelCipher
from services.ledger.models.channels import channels
from shared import outbox
from shared.contracts.channels import ChannelKeysChanged, ChannelKeyUsageView

log = structlog.get_logger(__name__)


def reseal_channels(session: Session, cipher: ChannelCipher) -> int:
    """Seal anew the secrets that are under a retired key. Returns: how many channels they are of.

    Locks: the channels; ones that somebody else has locked are left for the next time.
    """
    c, moved = channels.c, 0
    for code in [code for code, key_id in _keys(session, cipher) if key_id in cipher.retired_key_ids]:
        locking = sa.select(c.secrets).where(c.code == code).with_for_update(skip_locked=True, key_share=True)
        sealed = session.execute(locking).scalar()
        if sealed is not None:
            anew = cipher.seal(cipher.open(sealed, code=code), code=code)
            session.execute(sa.update(channels).where(c.code == code).values(secrets=anew))
            moved += 1
    return moved


def count_channel_key_usage(session: Session, cipher: ChannelCipher) -> ChannelKeyUsageView:
    """Return how many channels' secrets are under which key, as this process knows the keys."""
    counted = Counter(key_id for _, key_id in _keys(session, cipher))
    under = dict.fromkeys(cipher.key_ids, 0) | {key_id: count for key_id, count in counted.items() if key_id}
    return {"current": cipher.key_id, "retired": cipher.retired_key_ids, "channels": under}


def tell_channel_keys_changed(session: Session, *, current: str, retired: list[str], reason: str) -> None:
    """Leave in the audit log that the key of channels' secrets changed, and why. Emits: ChannelKeysChanged."""
    outbox.add(session, ChannelKeysChanged(key_id=current, retired=retired, reason=reason))


def _keys(session: Session, cipher: ChannelCipher) -> list[tuple[str, str | None]]:
    """Return which key each channel's secrets are under; None where they open under none."""
    sealed = session.execute(sa.select(channels.c.code, channels.c.secrets).where(channels.c.secrets.is_not(None)))
    return [(code, _key_of(cipher, secrets, code)) for code, secrets in sealed]


def _key_of(cipher: ChannelCipher, sealed: bytes, code: str) -> str | None:
    try:
        return cipher.key_of(sealed, code=code)
    except InvalidTag:
        log.error("secrets of a channel do not open", channel=code)
        return None
