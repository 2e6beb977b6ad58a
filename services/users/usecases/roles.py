"""What is done to a role. A role is held in many merchants' name, so changing one takes a caller who sees all."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.users.domain.grants import complete_permissions, grant_of_caller, grant_of_permissions, require_within
from services.users.models import EndingGrant, Role, api_key_roles, user_roles
from services.users.usecases.grants import own_until
from shared import outbox
from shared.contracts.users import (
    RoleBuiltIn,
    RoleCreated,
    RoleDeleted,
    RoleInUse,
    RoleNameTaken,
    RoleNotFound,
    RoleUpdated,
    RoleView,
)
from shared.passport import Passport


def create_role(
    session: Session, passport: Passport, *, name: str, permissions: Mapping[str, str], description: str = ""
) -> RoleView:
    """Add a role of permissions that the caller holds.

    permissions: module to level; modules that are not named have `none`.
    Raises, in order: InvalidRequest, GrantExceedsOwn, RoleNameTaken.
    Emits: RoleCreated.
    """
    complete = complete_permissions(permissions)
    require_within(grant_of_permissions(complete), own_until(session, passport, None))
    row = insert(Role).values(name=name, description=description, permissions=complete)
    role: Role | None = session.scalar(row.on_conflict_do_nothing().returning(Role))
    if role is None:
        raise RoleNameTaken.of_field("name", RoleNameTaken.title)
    after = {"description": description, "permissions": complete}
    changes = {field: {"before": None, "after": value} for field, value in after.items()}
    outbox.add(session, RoleCreated(name=name, changes=changes))
    return role.view()


def update_role(session: Session, passport: Passport, *, name: str, changes: Mapping[str, Any]) -> RoleView:
    """Change a role's description or permissions, for everyone who has it.

    changes: any of `description` and `permissions`, which replace what was.
    Raises, in order: RoleNotFound, RoleBuiltIn, GrantExceedsOwn, InvalidRequest.
    Emits: RoleUpdated, where something changed.   Locks: the role.
    """
    role = _lock_own_role(session, passport, name)
    before: dict[str, Any] = {"description": role.description, "permissions": role.permissions}
    after = {field: changes.get(field, value) for field, value in before.items()}
    after["permissions"] = complete_permissions(after["permissions"])
    require_within(grant_of_permissions(after["permissions"]), own_until(session, passport, None))
    changed = {f: {"before": before[f], "after": after[f]} for f in before if before[f] != after[f]}
    if changed:
        role.description, role.permissions, role.updated_at = after["description"], after["permissions"], sa.func.now()
        session.flush()
        session.refresh(role)
        outbox.add(session, RoleUpdated(name=name, changes=changed))
    return role.view()


def delete_role(session: Session, passport: Passport, *, name: str) -> None:
    """Delete a role that nobody has.

    Raises, in order: RoleNotFound, RoleBuiltIn, GrantExceedsOwn, RoleInUse.
    Emits: RoleDeleted.   Locks: the role.
    """
    role = _lock_own_role(session, passport, name)
    holders = (user_roles.c.role_name, api_key_roles.c.role_name, EndingGrant.role_name)
    if any(session.scalar(sa.select(sa.exists().where(role_name == name))) for role_name in holders):
        raise RoleInUse()
    before = {"description": role.description, "permissions": role.permissions}
    session.delete(role)
    session.flush()
    changes = {field: {"before": value, "after": None} for field, value in before.items()}
    outbox.add(session, RoleDeleted(name=name, changes=changes))


def _lock_own_role(session: Session, passport: Passport, name: str) -> Role:
    """Return a role for changing: not a built-in one, and none that gives more than the caller holds."""
    statement = sa.select(Role).where(Role.name == name).with_for_update()
    role = session.scalar(statement.execution_options(populate_existing=True))
    if role is None:
        raise RoleNotFound()
    if role.is_built_in:
        raise RoleBuiltIn()
    require_within(grant_of_permissions(role.permissions, merchants=None), grant_of_caller(passport))
    return role
