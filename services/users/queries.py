"""Reads of users: lists by keyset, newest first and cut to the caller's merchants, and what a session is good for."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users.domain.grants import merchant_list
from services.users.models import (
    ApiKey,
    EndingGrant,
    Merchant,
    RecoveryCode,
    RefreshToken,
    Role,
    User,
    UserSession,
    api_key_merchants,
    api_key_roles,
    user_merchants,
    user_roles,
)
from shared.contracts.users import (
    AccessView,
    HolderView,
    Introspection,
    MerchantNotFound,
    MeView,
    RoleNotFound,
    SessionOver,
    UserNotFound,
    UserSessionRequired,
)
from shared.errors import InvalidRequest
from shared.paging import InvalidCursor, Page, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.permissions import LEVELS, MODULES, allows, at_least, highest
from shared.times import parse_rfc3339, rfc3339

Row = TypeVar("Row")


def visible_users(passport: Passport) -> sa.ColumnElement[bool]:
    """Return the condition for users who see no merchant that the caller does not see; oneself is always visible."""
    if passport.merchants is None:
        return sa.true()
    foreign = sa.exists().where(
        user_merchants.c.user_id == User.id, user_merchants.c.merchant_id.not_in(passport.merchants)
    )
    foreign_for_now = _ending(EndingGrant.merchant_id.not_in(passport.merchants))
    is_ours = sa.and_(~User.sees_all_merchants, ~foreign, ~foreign_for_now)
    return sa.or_(is_ours, User.id == passport.actor_id)


def _ending(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return the condition for users who have, at this instant, a grant of that kind that ends."""
    return sa.exists().where(EndingGrant.user_id == User.id, EndingGrant.ends_at > sa.func.now(), condition)


def _has_role(names: Sequence[str] | sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Return the condition for users who hold one of these roles at this instant."""
    lasting = sa.exists().where(user_roles.c.user_id == User.id, user_roles.c.role_name.in_(names))
    return sa.or_(lasting, _ending(EndingGrant.role_name.in_(names)))


def _sees_merchant(merchant_id: str) -> sa.ColumnElement[bool]:
    """Return the condition for users who see this merchant at this instant, by name or because they see all."""
    by_name = sa.exists().where(user_merchants.c.user_id == User.id, user_merchants.c.merchant_id == merchant_id)
    return sa.or_(User.sees_all_merchants, by_name, _ending(EndingGrant.merchant_id == merchant_id))


def visible_api_keys(passport: Passport) -> sa.ColumnElement[bool]:
    """Return the condition for API keys that see no merchant that the caller does not see."""
    if passport.merchants is None:
        return sa.true()
    foreign = sa.exists().where(
        api_key_merchants.c.api_key_id == ApiKey.id, api_key_merchants.c.merchant_id.not_in(passport.merchants)
    )
    return sa.and_(~ApiKey.sees_all_merchants, ~foreign)


def visible_merchants(passport: Passport) -> sa.ColumnElement[bool]:
    """Return the condition for the caller's merchants."""
    return sa.true() if passport.merchants is None else Merchant.id.in_(passport.merchants)


def list_users(
    session: Session,
    passport: Passport,
    *,
    q: str | None = None,
    status: str | None = None,
    role: str | None = None,
    merchant_id: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page:
    """List users.

    q: part of the username, the display name or the email.
    merchant_id: only who sees this merchant, by name or because they see all.
    """
    statement = sa.select(User).where(visible_users(passport))
    if q:
        statement = statement.where(_contains(q, User.username, User.display_name, User.email))
    if status:
        statement = statement.where(User.status == status)
    if role:
        statement = statement.where(_has_role([role]))
    if merchant_id:
        if not passport.sees(merchant_id):
            return {"items": [], "next_cursor": None}
        statement = statement.where(_sees_merchant(merchant_id))
    return _page_by_id(session, statement, User.id, limit, cursor, User.view)


def get_user(session: Session, passport: Passport, *, user_id: str) -> User:
    """Return a user. Raises: UserNotFound."""
    user = session.scalar(sa.select(User).where(User.id == user_id, visible_users(passport)))
    if user is None:
        raise UserNotFound()
    return user


def get_user_access(session: Session, passport: Passport, *, user_id: str) -> AccessView:
    """Return what a user can see and do, and which roles give it. Raises: UserNotFound."""
    user = get_user(session, passport, user_id=user_id)
    return {
        "user_id": user.id,
        "username": user.username,
        "status": user.status,
        "permissions": dict(user.grant().permissions),
        "merchants": user.merchants_now(),
        "roles": [role.view() for role in user.roles_now()],
        "grants": user.view()["grants"],
    }


def list_permission_holders(
    session: Session,
    passport: Passport,
    *,
    permission: str,
    merchant_id: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page:
    """List the active users and API keys, of those that the caller sees, who hold a permission; users come first.

    merchant_id: only who sees this merchant, by name or because they see all.
    Raises: InvalidRequest for a permission that does not exist.
    """
    module, _, level = permission.partition(":")
    if module not in MODULES or level not in LEVELS[1:]:
        raise InvalidRequest.of_field("permission", "A module and a level, such as cards:operate.")
    if merchant_id is not None and not passport.sees(merchant_id):
        return {"items": [], "next_cursor": None}
    opens = sa.select(Role.name).where(
        Role.permissions[module].astext.in_(one for one in LEVELS if at_least(one, level))
    )
    of_users, of_keys = _users_with(opens, passport, merchant_id), _api_keys_with(opens, passport, merchant_id)
    if cursor:
        before = str(decode_cursor(cursor, length=1)[0])
        of_users, of_keys = of_users.where(User.id < before), of_keys.where(ApiKey.id < before)
    holders: list[User | ApiKey] = list(session.scalars(of_users.order_by(User.id.desc()).limit(limit + 1)))
    if len(holders) <= limit:  # ids of users begin with usr_, those of keys with key_: all keys come after all users
        holders += session.scalars(of_keys.order_by(ApiKey.id.desc()).limit(limit + 1 - len(holders)))
    return _page(holders, limit, lambda one: _holder(one, permission), lambda one: [one.id])


def _users_with(roles: sa.Select[Any], passport: Passport, merchant_id: str | None) -> sa.Select[User]:
    statement = sa.select(User).where(visible_users(passport), User.status == "active", _has_role(roles))
    return statement if merchant_id is None else statement.where(_sees_merchant(merchant_id))


def _api_keys_with(roles: sa.Select[Any], passport: Passport, merchant_id: str | None) -> sa.Select[ApiKey]:
    of_key, merchants_of_key = api_key_roles.c.api_key_id == ApiKey.id, api_key_merchants.c.api_key_id == ApiKey.id
    statement = sa.select(ApiKey).where(
        visible_api_keys(passport),
        ApiKey.revoked_at.is_(None),
        sa.or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > sa.func.now()),
        sa.exists().where(of_key, api_key_roles.c.role_name.in_(roles)),
    )
    if merchant_id is None:
        return statement
    sees_it = sa.exists().where(merchants_of_key, api_key_merchants.c.merchant_id == merchant_id)
    return statement.where(sa.or_(ApiKey.sees_all_merchants, sees_it))


def _holder(one: User | ApiKey, permission: str) -> HolderView:
    held = one.grant()
    type_, name, roles = (
        ("user", one.username, one.roles_now()) if isinstance(one, User) else ("api_key", one.name, one.roles)
    )
    return {
        "id": one.id,
        "type": type_,
        "name": name,
        "level": held.permissions[permission.partition(":")[0]],
        "roles": [role.name for role in roles if allows(role.permissions, permission)],
        "merchants": merchant_list(sees_all=held.merchants is None, merchant_ids=held.merchants or ()),
    }


def list_my_sessions(session: Session, passport: Passport, *, limit: int, cursor: str | None = None) -> Page:
    """List the caller's own sessions. Raises: UserSessionRequired."""
    if passport.actor_type != "user":
        raise UserSessionRequired()
    return _sessions_of(session, passport, passport.actor_id, limit, cursor)


def list_user_sessions(
    session: Session, passport: Passport, *, user_id: str, limit: int, cursor: str | None = None
) -> Page:
    """List the sessions of a user whom the caller sees. Raises: UserNotFound."""
    user = get_user(session, passport, user_id=user_id)
    return _sessions_of(session, passport, user.id, limit, cursor)


def list_roles(session: Session, *, limit: int, cursor: str | None = None) -> Page:
    """List roles; those of one instant, such as the built-in ones, by name."""
    statement = sa.select(Role).order_by(Role.created_at.desc(), Role.name.desc()).limit(limit + 1)
    if cursor:
        created_at, name = _role_position(cursor)
        statement = statement.where(sa.tuple_(Role.created_at, Role.name) < sa.tuple_(created_at, name))
    rows = session.scalars(statement).all()
    return _page(rows, limit, Role.view, lambda role: [rfc3339(role.created_at), role.name])


def get_role(session: Session, *, name: str) -> Role:
    """Return a role. Raises: RoleNotFound."""
    role = session.get(Role, name)
    if role is None:
        raise RoleNotFound()
    return role


def list_merchants(
    session: Session,
    passport: Passport,
    *,
    q: str | None = None,
    status: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page:
    """List the caller's merchants. q: part of the code or the name."""
    statement = sa.select(Merchant).where(visible_merchants(passport))
    if q:
        statement = statement.where(_contains(q, Merchant.code, Merchant.name))
    if status:
        statement = statement.where(Merchant.status == status)
    return _page_by_id(session, statement, Merchant.id, limit, cursor, Merchant.view)


def get_merchant(session: Session, passport: Passport, *, merchant_id: str) -> Merchant:
    """Return one of the caller's merchants. Raises: MerchantNotFound."""
    merchant = session.scalar(sa.select(Merchant).where(Merchant.id == merchant_id, visible_merchants(passport)))
    if merchant is None:
        raise MerchantNotFound()
    return merchant


def list_api_keys(session: Session, passport: Passport, *, limit: int, cursor: str | None = None) -> Page:
    """List API keys, the revoked and expired ones included."""
    now = session.scalars(sa.select(sa.func.now())).one()
    statement = sa.select(ApiKey).where(visible_api_keys(passport))
    return _page_by_id(session, statement, ApiKey.id, limit, cursor, lambda key: key.view(now))


def get_me(session: Session, passport: Passport) -> MeView:
    """Return who asks. Raises: SessionOver when they have just gone."""
    if passport.actor_type == "api_key":
        key = session.get(ApiKey, passport.actor_id)
        if key is None:
            raise SessionOver()
        key_view = key.view(key.created_at)
        return {
            "id": key.id,
            "type": "api_key",
            "username": None,
            "display_name": key.name,
            "email": None,
            "roles": key_view["roles"],
            "permissions": dict(key.grant().permissions),
            "merchants": key_view["merchants"],
            "grants": [],
            "must_change_password": False,
            "has_totp": False,
            "recovery_codes_left": 0,
        }
    user = session.get(User, passport.actor_id)
    if user is None:
        raise SessionOver()
    view = user.view()
    return {
        "id": user.id,
        "type": "user",
        "username": user.username,
        "display_name": user.display_name,
        "email": user.email,
        "roles": [role.name for role in user.roles_now()],
        "permissions": dict(user.grant().permissions),
        "merchants": user.merchants_now(),
        "grants": view["grants"],
        "must_change_password": user.must_change_password,
        "has_totp": user.has_totp,
        "recovery_codes_left": _recovery_codes_left(session, user),
    }


def _recovery_codes_left(session: Session, user: User) -> int:
    """Return how many recovery codes a user has; none while the second factor is not on."""
    if not user.has_totp:
        return 0
    mine = sa.select(sa.func.count()).select_from(RecoveryCode).where(RecoveryCode.user_id == user.id)
    return session.scalars(mine).one()


_SESSION_STATE = sa.text(
    """
    select users.id as actor_id, users.username as actor_name, users.must_change_password, users.sees_all_merchants,
           least(sessions.expires_at, (select min(ends_at) from ending_grants
                                        where ending_grants.user_id = users.id and ending_grants.ends_at > now()))
               as valid_until,
           array(select roles.permissions from user_roles join roles on roles.name = user_roles.role_name
                  where user_roles.user_id = users.id
                 union all
                 select roles.permissions from ending_grants join roles on roles.name = ending_grants.role_name
                  where ending_grants.user_id = users.id and ending_grants.ends_at > now()) as permissions,
           array(select merchant_id from user_merchants where user_merchants.user_id = users.id
                 union
                 select merchant_id from ending_grants
                  where ending_grants.user_id = users.id and ending_grants.ends_at > now()
                    and merchant_id is not null) as merchants
      from sessions join users on users.id = sessions.user_id
     where sessions.id = :session_id and sessions.ended_at is null and sessions.expires_at > now()
       and users.status = 'active'
    """
)
_API_KEY_STATE = sa.text(
    """
    select api_keys.id as actor_id, api_keys.name as actor_name, false as must_change_password,
           api_keys.sees_all_merchants, api_keys.expires_at as valid_until,
           array(select roles.permissions from api_key_roles join roles on roles.name = api_key_roles.role_name
                  where api_key_roles.api_key_id = api_keys.id) as permissions,
           array(select merchant_id from api_key_merchants where api_key_merchants.api_key_id = api_keys.id)
               as merchants
      from api_keys
     where api_keys.id = :key_id and api_keys.secret_hash = :secret_hash and api_keys.revoked_at is null
       and (api_keys.expires_at is null or api_keys.expires_at > now())
    """
)


def introspect_session(session: Session, *, session_id: str) -> Introspection:
    """Return what a session is good for at this instant."""
    return _introspection(session.execute(_SESSION_STATE, {"session_id": session_id}).one_or_none())


def introspect_api_key(session: Session, *, key_id: str, secret_hash: str) -> Introspection:
    """Return what an API key is good for at this instant.

    The hash is compared by the database: to time that comparison tells nothing about the secret behind the hash.
    """
    parameters = {"key_id": key_id, "secret_hash": secret_hash}
    return _introspection(session.execute(_API_KEY_STATE, parameters).one_or_none())


def _introspection(row: Any) -> Introspection:
    if row is None:
        return {"active": False}
    return {
        "active": True,
        "actor_id": row.actor_id,
        "actor_name": row.actor_name,
        "permissions": highest(row.permissions),
        "merchants": merchant_list(sees_all=row.sees_all_merchants, merchant_ids=row.merchants),
        "must_change_password": row.must_change_password,
        "valid_until": rfc3339(row.valid_until) if row.valid_until else None,
    }


def _contains(text: str, *columns: Any) -> sa.ColumnElement[bool]:
    return sa.or_(*(column.icontains(text, autoescape=True) for column in columns))


def _sessions_of(session: Session, passport: Passport, user_id: str, limit: int, cursor: str | None) -> Page:
    """Return a page of the sessions that can still be used: not ended, and with a refresh token that has not expired.

    An access token ends long before the refresh token that came with it, so nothing that still opens is left out.
    """
    of_session = RefreshToken.session_id == UserSession.id
    last_used_at = sa.select(sa.func.max(RefreshToken.issued_at)).where(of_session).scalar_subquery()
    statement = sa.select(UserSession, last_used_at).where(
        UserSession.user_id == user_id,
        UserSession.ended_at.is_(None),
        UserSession.expires_at > sa.func.now(),
        sa.exists().where(of_session, RefreshToken.spent_at.is_(None), RefreshToken.expires_at > sa.func.now()),
    )
    if cursor:
        statement = statement.where(UserSession.id < str(decode_cursor(cursor, length=1)[0]))
    rows = session.execute(statement.order_by(UserSession.id.desc()).limit(limit + 1)).all()
    return _page(
        rows,
        limit,
        lambda row: row[0].view(last_used_at=row[1], is_current=row[0].id == passport.session_id),
        lambda row: [row[0].id],
    )


def _page_by_id(
    session: Session,
    statement: sa.Select[Row],
    id_column: Any,
    limit: int,
    cursor: str | None,
    view: Callable[[Row], Any],
) -> Page:
    """Return a page by id, whose order is that of creation (shared/ids.py)."""
    if cursor:
        statement = statement.where(id_column < str(decode_cursor(cursor, length=1)[0]))
    rows = session.scalars(statement.order_by(id_column.desc()).limit(limit + 1)).all()
    return _page(rows, limit, view, lambda row: [getattr(row, id_column.key)])


def _page(rows: Sequence[Row], limit: int, view: Callable[[Row], Any], position: Callable[[Row], list[Any]]) -> Page:
    shown = rows[:limit]
    has_more = len(rows) > limit
    return {
        "items": [view(row) for row in shown],
        "next_cursor": encode_cursor(position(shown[-1])) if has_more else None,
    }


def _role_position(cursor: str) -> tuple[datetime, str]:
    created_at, name = decode_cursor(cursor, length=2)
    try:
        return parse_rfc3339(str(created_at)), str(name)
    except ValueError:
        raise InvalidCursor.of_field("cursor", InvalidCursor.title) from None
