"""Reads the roles and merchants that a grant names, ends grants, and keeps the last administrator in place."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users.domain.grants import Grant, grant_of_caller, grant_of_permissions, require_within
from services.users.models import EndingGrant, Merchant, Role, User
from shared import outbox
from shared.contracts.users import GrantEnded, LastAdministrator
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.passport import Passport
from shared.times import parse_rfc3339, rfc3339, utc_now

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


def own_until(session: Session, passport: Passport, instant: datetime | None) -> Grant:
    """Return what a caller may give until an instant, None for without an end: what they themselves hold for as long.

    Else whoever holds something for a day could keep it for ever, by giving it to somebody, or to themselves.
    """
    caller = session.get(User, passport.actor_id) if passport.actor_type == "user" else None
    if caller is None:
        return grant_of_caller(passport)
    return caller.lasting_grant() if instant is None else caller.grant(until=instant)


def give_until(session: Session, passport: Passport, user: User, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Set the grants of a user that end, each to no more and no longer than the caller holds it.

    wanted: `{role | merchant_id, ends_at}`; a grant that is not among them ends now, one that is there already stays.
    Raises, in order: InvalidRequest, GrantExceedsOwn.
    """
    known = {(grant.role_name, grant.merchant_id): grant for grant in user.ending_grants}
    kept: list[EndingGrant] = []
    for item in wanted:
        thing, ends_at = (item.get("role"), item.get("merchant_id")), _future(item["ends_at"])
        grant = known.pop(thing, None)
        if grant is not None and grant.ends_at == ends_at:
            kept.append(grant)
            continue
        if any((other.role_name, other.merchant_id) == thing for other in kept):
            raise InvalidRequest.of_field("grants", f"{thing[0] or thing[1]} stands here twice.")
        kept.append(_given(session, passport, grant or EndingGrant(id=new_id("grt")), thing, ends_at))
    user.ending_grants = kept


def _given(
    session: Session,
    passport: Passport,
    grant: EndingGrant,
    thing: tuple[str | None, str | None],
    ends_at: datetime,
) -> EndingGrant:
    """Return a grant of a role or a merchant until a time, which the caller holds for as long."""
    role_name, merchant_id = thing
    if role_name is not None:
        [grant.role] = roles_named(session, [role_name])
        given = grant_of_permissions(grant.role.permissions)
    elif merchant_id is not None:
        merchants_for(session, passport, [merchant_id])
        given = grant_of_permissions({}, merchants=[merchant_id])
    else:
        raise InvalidRequest.of_field("grants", "Either a role or a merchant.")
    require_within(given, own_until(session, passport, ends_at))
    grant.role_name, grant.merchant_id, grant.ends_at = role_name, merchant_id, ends_at
    grant.granted_by, grant.granted_at = passport.actor_id, utc_now()
    return grant


def end_due_grants(session: Session) -> int:
    """Delete the grants whose time is over, which nobody could use from that instant on, and tell of them.

    Returns: how many ended.
    Emits: GrantEnded for each, once over any number of instances.
    """
    due = sa.select(EndingGrant).where(EndingGrant.ends_at <= sa.func.now()).order_by(EndingGrant.ends_at)
    grants = session.scalars(due.with_for_update(of=EndingGrant, skip_locked=True)).all()
    for grant in grants:
        username = session.scalars(sa.select(User.username).where(User.id == grant.user_id)).one()
        outbox.add(
            session,
            GrantEnded(
                user_id=grant.user_id,
                username=username,
                role=grant.role_name,
                merchant_id=grant.merchant_id,
                ended_at=rfc3339(grant.ends_at),
            ),
        )
    session.execute(sa.delete(EndingGrant).where(EndingGrant.id.in_([grant.id for grant in grants])))
    return len(grants)


def _future(ends_at: str) -> datetime:
    try:
        instant = parse_rfc3339(ends_at)
    except ValueError as error:
        raise InvalidRequest.of_field("grants", str(error)) from None
    if instant <= utc_now():
        raise InvalidRequest.of_field("grants", f"{ends_at} lies in the past.")
    return instant


def lock_administrators(session: Session) -> None:
    """Take turns with everyone else who may take an administrator away, until this transaction ends.

    Two administrators who demote each other at once would each still see the other; the second one waits here, and
    then sees what the first one did. The lock does not hinder those who give the role to somebody.
    """
    session.execute(sa.select(Role.name).where(Role.name == ADMINISTRATOR).with_for_update(key_share=True))


def is_administrator(user: User) -> bool:
    """Return whether a user can administer everything: active, with the role, for all merchants, without an end."""
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
