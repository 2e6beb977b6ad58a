"""What can be done to channels: registered, and changed. Their secrets go in and never come out."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.cipher import ChannelCipher
from services.ledger.domain.channels import check_code, check_config, check_kind, check_name, merge_config
from services.ledger.domain.orders import check_reason
from services.ledger.models.channels import channel_view, channels
from shared import outbox
from shared.contracts.channels import (
    CHANNEL_STATUSES,
    ChannelCodeTaken,
    ChannelCreated,
    ChannelNotFound,
    ChannelsAreForAll,
    ChannelUpdated,
    ChannelView,
)
from shared.errors import InvalidRequest
from shared.masking import MASK
from shared.passport import Passport


def create_channel(
    session: Session,
    passport: Passport,
    cipher: ChannelCipher,
    *,
    allowed: frozenset[str],
    code: str,
    name: str,
    kind: str,
    config: Mapping[str, Any] | None = None,
    status: str = "active",
    reason: str | None = None,
) -> ChannelView:
    """Register a payment platform.

    config: its fields and its secrets together; the secrets are sealed and never shown again.
    allowed: the places beside public ones that may be called.
    Raises, in order: ChannelsAreForAll; InvalidRequest; InvalidChannelConfig; ChannelCodeTaken.
    Emits: ChannelCreated.
    """
    _require_all_merchants(passport)
    said = check_reason(reason, is_required=False)
    openly, secrets = check_config(check_kind(kind), config or {}, allowed=allowed)
    values = {
        "code": check_code(code),
        "name": check_name(name),
        "kind": kind,
        "config": openly,
        "secrets": cipher.seal(secrets, code=code),
        "status": _check_status(status),
    }
    inserting = sa.dialects.postgresql.insert(channels).values(values).on_conflict_do_nothing()
    row = session.execute(inserting.returning(channels)).first()
    if row is None:
        raise ChannelCodeTaken
    told: dict[str, Any] = {
        "code": code,
        "name": name,
        "kind": kind,
        "config": openly,
        "credentials": sorted(secrets),
        "reason": said,
    }
    outbox.add(session, ChannelCreated(**told))
    return channel_view(row, secrets)


def update_channel(
    session: Session,
    passport: Passport,
    cipher: ChannelCipher,
    *,
    allowed: frozenset[str],
    code: str,
    reason: str,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    status: str | None = None,
) -> ChannelView:
    """Change a channel. Its kind and its code stay what they are.

    config: the fields and secrets that change; null takes one out, and what is not named stays.
    Raises, in order: ChannelsAreForAll; InvalidRequest; ChannelNotFound; InvalidChannelConfig.
    Emits: ChannelUpdated, where anything changed.
    Locks: the channel.
    """
    _require_all_merchants(passport)
    said = check_reason(reason, is_required=True) or ""
    before = session.execute(sa.select(channels).where(channels.c.code == code).with_for_update()).first()
    if before is None:
        raise ChannelNotFound
    had = cipher.open(before.secrets, code=code)
    openly, secrets = check_config(before.kind, merge_config(before.config | had, config or {}), allowed=allowed)
    after = {
        "name": before.name if name is None else check_name(name),
        "status": before.status if status is None else _check_status(status),
    }
    changes: dict[str, dict[str, Any]] = {
        field: {"before": getattr(before, field), "after": value}
        for field, value in after.items()
        if value != getattr(before, field)
    }
    changes |= _changes("config", before.config, openly)
    changes |= {field: _masked(change) for field, change in _changes("credentials", had, secrets).items()}
    if not changes:
        return channel_view(before, had)
    changing = sa.update(channels).where(channels.c.code == code).returning(channels)
    row = session.execute(
        changing.values(
            **after,
            config=openly,
            secrets=cipher.seal(secrets, code=code),
            version=channels.c.version + 1,
            updated_at=sa.func.clock_timestamp(),
        )
    ).one()
    outbox.add(session, ChannelUpdated(code=code, version=row.version, changes=changes, reason=said))
    return channel_view(row, secrets)


def _require_all_merchants(passport: Passport) -> None:
    if passport.merchants is not None:
        raise ChannelsAreForAll


def _check_status(status: Any) -> str:
    if status not in CHANNEL_STATUSES:
        raise InvalidRequest.of_field("status", f"Must be one of {', '.join(CHANNEL_STATUSES)}.")
    return str(status)


def _changes(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{prefix}.{name}": {"before": before.get(name), "after": after.get(name)}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _masked(change: Mapping[str, Any]) -> dict[str, Any]:
    return {side: None if value is None else MASK for side, value in change.items()}
