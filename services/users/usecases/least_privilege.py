"""Granted against used: a report from the audit's figures, and one act that takes away what nobody needed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users.domain.grants import complete_permissions, grant_of_caller, require_within
from services.users.domain.least_privilege import WINDOW_DAYS, excess_of, least_of, roles_that_give, used_levels
from services.users.models import Role, User
from services.users.queries import get_user, list_users, visible_users
from services.users.usecases.grants import is_administrator, lock_administrators, require_another_administrator
from shared import idempotency, outbox
from shared.contracts.audit import UsedPermission
from shared.contracts.users import (
    LeastPrivilegeView,
    ModuleUseView,
    RoleCreated,
    UserNotFound,
    UserShrunk,
    UserView,
)
from shared.paging import Page
from shared.passport import Passport
from shared.rpc.wire import Answer, current_call
from shared.times import rfc3339, utc_now

ROLE_NAME_LENGTH_MAX = 60

Used = Mapping[str, Sequence[UsedPermission]]
AskAudit = Callable[[Sequence[str], str], Used]
Run = Callable[[Callable[[Session], Any]], Any]


def window_start() -> datetime:
    """Return from when on uses count."""
    return utc_now() - timedelta(days=WINDOW_DAYS)


def get_least_privilege(run: Run, ask_audit: AskAudit, passport: Passport, *, user_id: str) -> LeastPrivilegeView:
    """Return a user's report. Raises: UserNotFound; Unavailable where audit does not answer."""
    since = window_start()
    run(lambda session: get_user(session, passport, user_id=user_id).id)
    used = ask_audit([user_id], rfc3339(since))[user_id]
    view: LeastPrivilegeView = run(
        lambda session: report(session, get_user(session, passport, user_id=user_id), used, since=since)
    )
    return view


def list_least_privilege(run: Run, ask_audit: AskAudit, passport: Passport, **question: Any) -> Page:
    """Return the reports of a page of users. Raises: Unavailable where audit does not answer."""
    since = window_start()
    page: Page = run(lambda session: list_users(session, passport, **question))
    user_ids = [user["id"] for user in page["items"]]
    used = ask_audit(user_ids, rfc3339(since)) if user_ids else {}

    def reports(session: Session) -> list[LeastPrivilegeView]:
        of_page = {user.id: user for user in session.scalars(sa.select(User).where(User.id.in_(user_ids)))}
        return [report(session, of_page[id_], used[id_], since=since) for id_ in user_ids]

    return {"items": run(reports), "next_cursor": page["next_cursor"]}


def shrink_once(run: Run, ask_audit: AskAudit, passport: Passport, *, user_id: str, reason: str) -> Answer:
    """Shrink a user by the audit's figures, once under the call's idempotency key.

    Raises: what `shrink_user` raises, and Unavailable where audit does not answer.
    """
    run(lambda session: get_user(session, passport, user_id=user_id).id)
    used, call = ask_audit([user_id], rfc3339(window_start()))[user_id], current_call.get()

    def act(session: Session) -> Answer:
        first = idempotency.claim(session, call) if call.idempotency_key else None
        if first is not None:
            return first
        answer = Answer(shrink_user(session, passport, user_id=user_id, reason=reason, used=used))
        if call.idempotency_key:
            idempotency.keep(session, call, answer=answer)
        return answer

    answered: Answer = run(act)
    return answered


def report(session: Session, user: User, used: Iterable[UsedPermission], *, since: datetime) -> LeastPrivilegeView:
    """Return what a user holds without an end against what they used since an instant."""
    uses = {use["permission"]: use for use in used}
    granted = dict(user.lasting_grant().permissions)
    least = least_of(granted, used_levels(uses))
    return {
        "user_id": user.id,
        "username": user.username,
        "status": user.status,
        "roles": [role.name for role in user.roles],
        "since": rfc3339(max(since, user.created_at)),
        "modules": [_module(module, level, uses) for module, level in granted.items()],
        "excess": excess_of(granted, least),
        "least": least,
        "least_roles": _existing_roles(session, least),
    }


def shrink_user(
    session: Session, passport: Passport, *, user_id: str, reason: str, used: Iterable[UsedPermission]
) -> UserView:
    """Replace a user's roles by the least that cover what was used; where nothing is in excess, change nothing.

    The user gets existing roles that give exactly that, else a role of their own. Grants that end are left to end.
    Raises, in order: UserNotFound, GrantExceedsOwn, LastAdministrator.
    Emits: UserShrunk, and RoleCreated for a role of their own.   Locks: the administrators; the user.
    """
    lock_administrators(session)
    statement = sa.select(User).where(User.id == user_id, visible_users(passport))
    user = session.scalar(statement.with_for_update(of=User).execution_options(populate_existing=True))
    if user is None:
        raise UserNotFound()
    require_within(user.grant(), grant_of_caller(passport))
    granted = user.lasting_grant().permissions
    least = least_of(granted, used_levels(use["permission"] for use in used))
    excess = excess_of(granted, least)
    if not excess:
        return user.view()
    was_administrator, before = is_administrator(user), [role.name for role in user.roles]
    names = _existing_roles(session, least)
    user.roles = [_own_role(session, user, least)] if names is None else _roles(session, names)
    if was_administrator and not is_administrator(user):
        require_another_administrator(session, user)
    user.updated_at = utc_now()
    session.flush()
    session.refresh(user)
    after = [role.name for role in user.roles]
    outbox.add(
        session,
        UserShrunk(
            user_id=user.id,
            username=user.username,
            reason=reason,
            excess=excess,
            changes={"roles": {"before": before, "after": after}},
        ),
    )
    return user.view()


def _module(module: str, granted: str, uses: Mapping[str, UsedPermission]) -> ModuleUseView:
    mine = [use for permission, use in uses.items() if permission.partition(":")[0] == module]
    return {
        "module": module,
        "granted": granted,
        "used": used_levels(use["permission"] for use in mine)[module],
        "uses": sum(use["uses"] for use in mine),
        "last_used_at": max((use["last_used_at"] for use in mine), default=None),
    }


def _existing_roles(session: Session, least: Mapping[str, str]) -> list[str] | None:
    rows = session.execute(sa.select(Role.name, Role.permissions))
    return roles_that_give(least, {row.name: row.permissions for row in rows})


def _roles(session: Session, names: Iterable[str]) -> list[Role]:
    statement = sa.select(Role).where(Role.name.in_(names)).order_by(Role.name)
    return list(session.scalars(statement.with_for_update(read=True, key_share=True)))


def _own_role(session: Session, user: User, least: Mapping[str, str]) -> Role:
    """Return a new role of exactly these levels, named after the user."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", f"least-{user.username}")[: ROLE_NAME_LENGTH_MAX - 5]
    taken = set(
        session.scalars(sa.select(sa.func.lower(Role.name)).where(Role.name.istartswith(stem, autoescape=True)))
    )
    name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 10_000))) if n.lower() not in taken)
    permissions = complete_permissions(least)
    role = Role(name=name, description=f"What {user.username} was seen to need.", permissions=permissions)
    session.add(role)
    session.flush()
    changes = {"permissions": {"before": None, "after": permissions}}
    outbox.add(session, RoleCreated(name=name, changes=changes))
    return role
