"""Reads the roles and merchants that a grant names, and keeps the last administrator in place."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users.domain.grants import grant_of_caller, grant_of_permissions, require_within
from services.users.models import Merchant, Role, User
from shared.contracts.users import LastAdministrator
from shared.errors import InvalidRequest
from shared.passport import Passport

ADMINISTRATOR = "administrator"


def roles_named(session: Session, names: Iterable[str]) -> list[Role]:
    """Return the roles, which nobody deletes until this transaction ends.

    Raises: InvalidRequest for a name that is no role.
    """
    wanted = set(names)
    statement = sa.select(Role).where(Role.name.in_(wanted)).order_by(Role.name)
    roles = list(session.scalars(statement.with_for_update(read=True, key_share=True)))
    unknown = wanted - {role.name for role in roles}
    if unknown:
        raise InvalidRequest.of_field("roles", f"Unknown role: {min(unknown)[:60]}.")
    return roles


def merchants_for(session: Session, passport: Passport, merchant_ids: Sequence[str]) -> list[Merchant]:
    """Return the merchants that a caller gives to somebody.

    An unknown merchant and a foreign one are told apart only to those who see all.
    Raises, in order: GrantExceedsOwn; InvalidRequest.
    """
    wanted = set(merchant_ids)
    require_within(grant_of_permissions({}, merchants=wanted), grant_of_caller(passport))
    merchants = list(session.scalars(sa.select(Merchant).where(Merchant.id.in_(wanted)).order_by(Merchant.id)))
    unknown = wanted - {merchant.id for merchant in merchants}
    if unknown:
        raise InvalidRequest.of_field("merchants", f"Unknown merchant: {min(unknown)[:60]}.")
    return merchants


def lock_administrators(session: Session) -> None:
    """Take turns with everyone else who may take an administrator away, until this transaction ends.

    Two administrators who demote each other at once would each still see the other; the second one waits here, and
    then sees what the first one did. The lock does not hinder those who give the role to somebody.
    """
    session.execute(sa.select(Role.name).where(Role.name == ADMINISTRATOR).with_for_update(key_share=True))


def is_administrator(user: User) -> bool:
    """Return whether a user can administer everything: active, with the role, for all merchants."""
    return user.status == "active" and user.sees_all_merchants and any(r.name == ADMINISTRATOR for r in user.roles)


def has_administrator(session: Session, *, besides: str | None = None) -> bool:
    """Return whether anybody, besides this user, administers everything. Call under `lock_administrators`."""
    found = sa.exists().where(
        User.id.is_distinct_from(besides),
        User.status == "active",
        User.sees_all_merchants,
        User.roles.any(Role.name == ADMINISTRATOR),
    )
    return session.scalars(sa.select(found)).one()


def require_another_administrator(session: Session, user: User) -> None:
    """Refuse to go on when nobody but this user administers. Raises: LastAdministrator."""
    if not has_administrator(session, besides=user.id):
        raise LastAdministrator()
