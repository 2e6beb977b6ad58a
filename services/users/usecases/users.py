"""What is done to a user: create, update, disable, enable, reset the password or the second factor, end a session."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.users.domain.grants import Grant, grant_of_caller, require_within
from services.users.domain.lockouts import CODES, name_key
from services.users.domain.passwords import TEMPORARY_PASSWORD_LIFETIME, new_temporary_password
from services.users.hashing import hash_password
from services.users.models import SignInFailures, User
from services.users.queries import visible_users
from services.users.usecases import totp
from services.users.usecases.grants import (
    give_until,
    is_administrator,
    lock_administrators,
    merchants_for,
    own_until,
    require_another_administrator,
    roles_named,
)
from services.users.usecases.sessions import end_one_session, end_sessions
from shared import outbox
from shared.contracts.users import (
    Changes,
    Merchants,
    PasswordReset,
    TotpReset,
    UserCreated,
    UserDisabled,
    UserEnabled,
    UsernameTaken,
    UserNotFound,
    UserUpdated,
    UserView,
    UserWithPasswordView,
)
from shared.ids import new_id
from shared.passport import Passport
from shared.times import utc_now

_AUDITED = ("username", "display_name", "email", "roles", "merchants", "grants", "status")


def create_user(
    session: Session,
    passport: Passport,
    *,
    username: str,
    display_name: str = "",
    email: str | None = None,
    roles: list[str] | None = None,
    merchants: Merchants | None = None,
    grants: list[dict[str, Any]] | None = None,
) -> UserWithPasswordView:
    """Add a user, who signs in with a one-time password and must change it.

    roles, merchants, and grants, which end: none unless given.
    Raises, in order: InvalidRequest, GrantExceedsOwn, UsernameTaken.
    Emits: UserCreated.
    """
    temporary_password = new_temporary_password()
    user = User(
        id=new_id("usr"),
        username=username,
        username_key=name_key(username),
        display_name=display_name or username,
        email=email,
        status="active",
        password_hash=hash_password(temporary_password),
        must_change_password=True,
        password_expires_at=utc_now() + TEMPORARY_PASSWORD_LIFETIME,
    )
    _give(session, passport, user, roles=roles or [], merchants=merchants or [])
    give_until(session, passport, user, grants or [])
    session.add(user)
    _flush_username(session)
    session.refresh(user)
    view = user.view()
    outbox.add(
        session,
        UserCreated(
            user_id=user.id,
            username=username,
            roles=view["roles"],
            merchants=view["merchants"],
            changes=_changes({}, view),
        ),
    )
    return {**view, "temporary_password": temporary_password}


def update_user(session: Session, passport: Passport, *, user_id: str, changes: Mapping[str, Any]) -> UserView:
    """Change the given fields of a user: username, display_name, email, roles, merchants, grants.

    Raises, in order: UserNotFound, GrantExceedsOwn, InvalidRequest, UsernameTaken, LastAdministrator.
    Emits: UserUpdated, where something changed.   Locks: the administrators, where a grant changes; the user.
    """
    if "roles" in changes or "merchants" in changes:
        lock_administrators(session)
    user = _lock_user(session, passport, user_id)
    before, was_administrator = user.view(), is_administrator(user)
    for field in ("display_name", "email"):
        if field in changes:
            setattr(user, field, changes[field])
    _give(session, passport, user, roles=changes.get("roles"), merchants=changes.get("merchants"))
    if "grants" in changes:
        give_until(session, passport, user, changes["grants"])
    if was_administrator and not is_administrator(user):
        require_another_administrator(session, user)
    if "username" in changes:  # last, so that no read above writes it unguarded
        user.username, user.username_key = changes["username"], name_key(changes["username"])
    with session.no_autoflush:  # what it was given is read again
        changed = _changes(before, user.view())
    if changed:
        user.updated_at = sa.func.now()
        _flush_username(session)
        session.refresh(user)
        outbox.add(session, UserUpdated(user_id=user.id, username=user.username, changes=changed))
    return user.view()


def disable_user(session: Session, passport: Passport, *, user_id: str, reason: str) -> UserView:
    """Shut a user out, at once; one who is out already stays so.

    Raises, in order: UserNotFound, GrantExceedsOwn, LastAdministrator.
    Emits: UserDisabled, and SessionEnded for each open session.   Locks: the administrators; the user.
    """
    lock_administrators(session)
    user = _lock_user(session, passport, user_id)
    if user.status == "disabled":
        return user.view()
    if is_administrator(user):
        require_another_administrator(session, user)
    changes = _set_status(session, user, "disabled")
    outbox.add(session, UserDisabled(user_id=user.id, username=user.username, reason=reason, changes=changes))
    end_sessions(session, user, why="user_disabled")
    return user.view()


def enable_user(session: Session, passport: Passport, *, user_id: str, reason: str | None = None) -> UserView:
    """Let a disabled user sign in again; the sessions of before stay ended.

    Raises, in order: UserNotFound, GrantExceedsOwn.
    Emits: UserEnabled.   Locks: the user.
    """
    user = _lock_user(session, passport, user_id)
    if user.status == "active":
        return user.view()
    changes = _set_status(session, user, "active")
    outbox.add(session, UserEnabled(user_id=user.id, username=user.username, reason=reason, changes=changes))
    return user.view()


def reset_password(
    session: Session, passport: Passport, *, user_id: str, reason: str | None = None
) -> UserWithPasswordView:
    """Give a user a one-time password, end all sessions, and forget failed sign-ins.

    Raises, in order: UserNotFound, GrantExceedsOwn.
    Emits: PasswordReset, and SessionEnded for each open session.   Locks: the user.
    """
    temporary_password = new_temporary_password()
    password_hash = hash_password(temporary_password)  # before the lock, since it takes a while
    user = _lock_user(session, passport, user_id)
    user.password_hash, user.must_change_password, user.updated_at = password_hash, True, sa.func.now()
    user.password_expires_at = utc_now() + TEMPORARY_PASSWORD_LIFETIME
    session.flush()
    session.refresh(user)
    session.execute(sa.delete(SignInFailures).where(SignInFailures.username_key == user.username_key))
    outbox.add(session, PasswordReset(user_id=user.id, username=user.username, reason=reason))
    end_sessions(session, user, why="password_reset")
    return {**user.view(), "temporary_password": temporary_password}


def reset_totp(session: Session, passport: Passport, *, user_id: str, reason: str) -> UserView:
    """Turn a user's two-factor sign-in off, for whoever has lost the device and the recovery codes.

    Raises, in order: UserNotFound, GrantExceedsOwn, TotpOff.
    Emits: TotpReset.   Locks: the user.
    """
    user = _lock_user(session, passport, user_id)
    totp.reset(session, user)
    session.execute(
        sa.delete(SignInFailures).where(
            SignInFailures.username_key == user.username_key, SignInFailures.address == CODES
        )
    )
    outbox.add(session, TotpReset(user_id=user.id, username=user.username, reason=reason))
    session.refresh(user)
    return user.view()


def end_user_session(session: Session, passport: Passport, *, user_id: str, session_id: str) -> None:
    """End one session of a user, whose other sessions and password stay.

    Raises, in order: UserNotFound, GrantExceedsOwn, SessionNotFound.
    Emits: SessionEnded.   Locks: the user.
    """
    user = _lock_user(session, passport, user_id)
    end_one_session(session, user, why="ended_by_administrator", session_id=session_id)


def _lock_user(session: Session, passport: Passport, user_id: str) -> User:
    """Return a user for changing: one whom the caller sees, and who holds nothing that the caller does not hold.

    Else whoever administers users could reset a stronger user's password and become that user.
    """
    statement = sa.select(User).where(User.id == user_id, visible_users(passport))
    user = session.scalar(statement.with_for_update(of=User).execution_options(populate_existing=True))
    if user is None:
        raise UserNotFound()
    require_within(user.grant(), grant_of_caller(passport))
    return user


def _give(
    session: Session, passport: Passport, user: User, *, roles: list[str] | None, merchants: Merchants | None
) -> None:
    """Set roles and merchants, where given, to no more than the caller holds without an end."""
    own = own_until(session, passport, None)
    if roles is not None:
        user.roles = roles_named(session, roles)
    if merchants is not None:
        user.sees_all_merchants = merchants == "all"
        if user.sees_all_merchants:
            require_within(Grant(permissions={}, merchants=None), own)
            user.merchants = []
        else:
            user.merchants = merchants_for(session, passport, merchants)
    if roles is not None or merchants is not None:
        require_within(user.lasting_grant(), own)


def _set_status(session: Session, user: User, status: str) -> Changes:
    before = user.status
    user.status, user.updated_at = status, sa.func.now()
    session.flush()
    session.refresh(user)
    return {"status": {"before": before, "after": status}}


def _flush_username(session: Session) -> None:
    """Write the user. Raises: UsernameTaken."""
    try:
        session.flush()
    except IntegrityError as error:
        if "uq_users_username" in str(error.orig):
            raise UsernameTaken.of_field("username", UsernameTaken.title) from None
        raise


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    return {
        field: {"before": before.get(field), "after": after[field]}
        for field in _AUDITED
        if before.get(field) != after[field]
    }
