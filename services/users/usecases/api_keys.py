"""What is done to an API key: create and revoke."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users.domain.grants import grant_of_caller, require_within
from services.users.models import ApiKey
from services.users.queries import visible_api_keys
from services.users.tokens import new_secret, secret_hash
from services.users.usecases.grants import merchants_for, own_until, roles_named
from shared import outbox
from shared.contracts.users import (
    API_KEY_PREFIX,
    ApiKeyCreated,
    ApiKeyNotFound,
    ApiKeyRevoked,
    ApiKeyWithSecretView,
    Merchants,
)
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.passport import Passport
from shared.times import parse_rfc3339, utc_now


def create_api_key(
    session: Session,
    passport: Passport,
    *,
    name: str,
    roles: list[str],
    merchants: Merchants,
    expires_at: str | None = None,
) -> ApiKeyWithSecretView:
    """Make a key for a program, holding no more, and nothing for longer, than the caller does.

    Its secret is in this answer and nowhere else.

    expires_at: RFC 3339, in the future; None for a key that lasts until it is revoked.
    Raises, in order: InvalidRequest, GrantExceedsOwn.
    Emits: ApiKeyCreated.
    """
    ends_at = _future(expires_at)
    secret = new_secret()
    key = ApiKey(
        id=new_id("key"),
        name=name,
        secret_hash=secret_hash(secret).hex(),
        sees_all_merchants=merchants == "all",
        expires_at=ends_at,
        created_by=passport.actor_id,
    )
    key.roles = roles_named(session, roles)
    key.merchants = [] if merchants == "all" else merchants_for(session, passport, merchants)
    require_within(key.grant(), own_until(session, passport, ends_at))
    session.add(key)
    session.flush()
    session.refresh(key)
    view = key.view(utc_now())
    outbox.add(
        session,
        ApiKeyCreated(
            api_key_id=key.id,
            name=name,
            roles=view["roles"],
            merchants=view["merchants"],
            expires_at=view["expires_at"],
        ),
    )
    return {**view, "secret": f"{API_KEY_PREFIX}{key.id.removeprefix('key_')}_{secret}"}


def revoke_api_key(session: Session, passport: Passport, *, key_id: str) -> None:
    """End a key; one that is revoked already stays so.

    Raises, in order: ApiKeyNotFound, GrantExceedsOwn.
    Emits: ApiKeyRevoked.   Locks: the key.
    """
    statement = sa.select(ApiKey).where(ApiKey.id == key_id, visible_api_keys(passport))
    key = session.scalar(statement.with_for_update(of=ApiKey).execution_options(populate_existing=True))
    if key is None:
        raise ApiKeyNotFound()
    require_within(key.grant(), grant_of_caller(passport))
    if key.revoked_at is None:
        key.revoked_at = utc_now()
        outbox.add(session, ApiKeyRevoked(api_key_id=key.id, name=key.name))


def _future(expires_at: str | None) -> datetime | None:
    if expires_at is None:
        return None
    try:
        instant = parse_rfc3339(expires_at)
    except ValueError as error:
        raise InvalidRequest.of_field("expires_at", str(error)) from None
    if instant <= utc_now():
        raise InvalidRequest.of_field("expires_at", "This lies in the past.")
    return instant
