"""What is done to roles."""

import pytest
from sqlalchemy.orm import Session

from services.users import queries
from services.users.models import Role, User, UserSession
from services.users.usecases import roles
from shared.contracts.users import (
    GrantExceedsOwn,
    RoleBuiltIn,
    RoleInUse,
    RoleNameTaken,
    RoleNotFound,
)
from shared.errors import InvalidRequest
from shared.passport import Passport
from shared.permissions import BUILT_IN_ROLES, MODULES
from shared.times import utc_now
from tests.services.users.conftest import events, make_user, passport_of


@pytest.fixture
def as_operator(session: Session) -> Passport:
    return passport_of(make_user(session, "op", roles=["operator"]))


def test_built_in_roles_are_those_of_the_contract(session: Session) -> None:
    stored = {role["name"]: role for role in queries.list_roles(session, limit=50)["items"]}
    assert {name: role["permissions"] for name, role in stored.items()} == BUILT_IN_ROLES
    assert all(role["is_built_in"] for role in stored.values())


def test_new_role_names_every_module(session: Session, as_root: Passport) -> None:
    view = roles.create_role(session, as_root, name="teller", permissions={"ledger": "operate"}, description="Till.")
    assert view["permissions"] == dict.fromkeys(MODULES, "none") | {"ledger": "operate"}
    assert queries.get_role(session, name="teller").view() == view
    [event] = events(session, "RoleCreated")
    assert event["resource_id"] == "teller"


def test_taken_name_and_unknown_module_are_refused(session: Session, as_root: Passport) -> None:
    for name in ("auditor", "Auditor"):
        with pytest.raises(RoleNameTaken):
            roles.create_role(session, as_root, name=name, permissions={})
    with pytest.raises(InvalidRequest):
        roles.create_role(session, as_root, name="chef", permissions={"kitchen": "admin"})


def test_nobody_makes_a_role_beyond_their_own(session: Session, as_operator: Passport) -> None:
    with pytest.raises(GrantExceedsOwn):
        roles.create_role(session, as_operator, name="boss", permissions={"ledger": "admin"})


def test_changed_role_holds_for_whoever_has_it(session: Session, as_root: Passport) -> None:
    roles.create_role(session, as_root, name="teller", permissions={"ledger": "operate"})
    dora: User = make_user(session, "dora", roles=["teller"])
    session.add(
        UserSession(
            id="ses_1", user_id=dora.id, address="a", ip="a", user_agent="", expires_at=utc_now().replace(year=2999)
        )
    )
    session.flush()
    roles.update_role(session, as_root, name="teller", changes={"permissions": {"ledger": "read", "cards": "read"}})
    permissions = queries.introspect_session(session, session_id="ses_1")["permissions"]
    assert (permissions["ledger"], permissions["cards"]) == ("read", "read")
    [event] = events(session, "RoleUpdated")
    change = event["payload"]["changes"]["permissions"]
    assert (change["before"]["ledger"], change["after"]["ledger"]) == ("operate", "read")


def test_nobody_raises_or_lowers_a_role_beyond_their_own(
    session: Session, as_root: Passport, as_operator: Passport
) -> None:
    roles.create_role(session, as_root, name="teller", permissions={"ledger": "operate"})
    roles.create_role(session, as_root, name="boss", permissions={"ledger": "admin"})
    with pytest.raises(GrantExceedsOwn):
        roles.update_role(session, as_operator, name="teller", changes={"permissions": {"ledger": "admin"}})
    with pytest.raises(GrantExceedsOwn):
        roles.update_role(session, as_operator, name="boss", changes={"permissions": {}})
    with pytest.raises(GrantExceedsOwn):
        roles.delete_role(session, as_operator, name="boss")


def test_role_is_not_changed_by_somebody_of_a_few_merchants(session: Session, as_root: Passport) -> None:
    """Its holders may see other merchants, for which this caller can give nothing."""
    roles.create_role(session, as_root, name="teller", permissions={"ledger": "read"})
    scoped = passport_of(make_user(session, "scoped", roles=["administrator"], merchants=[]))
    with pytest.raises(GrantExceedsOwn, match="all merchants"):
        roles.update_role(session, scoped, name="teller", changes={"permissions": {"ledger": "operate"}})


@pytest.mark.parametrize("name", BUILT_IN_ROLES)
def test_built_in_role_is_neither_deleted_nor_changed(session: Session, as_root: Passport, name: str) -> None:
    with pytest.raises(RoleBuiltIn):
        roles.delete_role(session, as_root, name=name)
    with pytest.raises(RoleBuiltIn):
        roles.update_role(session, as_root, name=name, changes={"permissions": {}})


def test_role_in_use_is_not_deleted_and_an_unused_one_is(session: Session, as_root: Passport) -> None:
    roles.create_role(session, as_root, name="teller", permissions={"ledger": "read"})
    dora = make_user(session, "dora", roles=["teller"])
    with pytest.raises(RoleInUse):
        roles.delete_role(session, as_root, name="teller")
    dora.roles = []
    session.flush()
    roles.delete_role(session, as_root, name="teller")
    assert session.get(Role, "teller") is None
    with pytest.raises(RoleNotFound):
        roles.delete_role(session, as_root, name="teller")
    assert len(events(session, "RoleDeleted")) == 1


def test_pages_of_roles_miss_and_repeat_nothing(session: Session, as_root: Passport) -> None:
    for i in range(4):
        roles.create_role(session, as_root, name=f"role{i}", permissions={})
    seen: list[str] = []
    cursor = None
    while True:
        page = queries.list_roles(session, limit=2, cursor=cursor)
        seen += [role["name"] for role in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted([*BUILT_IN_ROLES, "role0", "role1", "role2", "role3"])
