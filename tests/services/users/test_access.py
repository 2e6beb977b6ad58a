"""What somebody can see, and who can do something: cut to the caller's merchants, as everything is."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users.models import ApiKey, Merchant
from services.users.queries import get_user_access, list_permission_holders
from services.users.usecases.api_keys import create_api_key, revoke_api_key
from services.users.usecases.roles import create_role
from shared.contracts.users import UserNotFound
from shared.errors import InvalidRequest
from shared.passport import Passport
from shared.times import utc_now
from tests.services.users.conftest import make_user, passport_of


def holders(
    session: Session, passport: Passport, permission: str = "cards:operate", merchant: Merchant | None = None
) -> list[str]:
    page = list_permission_holders(
        session, passport, permission=permission, merchant_id=merchant.id if merchant else None, limit=50
    )
    return [item["name"] for item in page["items"]]


def test_access_is_the_highest_of_all_roles_and_says_which_give_it(
    session: Session, as_root: Passport, aurora: Merchant
) -> None:
    create_role(session, as_root, name="freezer", permissions={"cards": "admin"})
    bob = make_user(session, "bob", roles=["auditor", "freezer"], merchants=[aurora])
    access = get_user_access(session, as_root, user_id=bob.id)
    assert (access["permissions"]["cards"], access["permissions"]["ledger"]) == ("admin", "read")
    assert ([r["name"] for r in access["roles"]], access["merchants"]) == (["auditor", "freezer"], [aurora.id])


def test_access_of_who_sees_a_foreign_merchant_is_not_shown(
    session: Session, aurora: Merchant, borealis: Merchant
) -> None:
    bob = make_user(session, "bob", roles=["auditor"], merchants=[aurora])
    charlie = make_user(session, "charlie", roles=["auditor"], merchants=[borealis])
    with pytest.raises(UserNotFound):
        get_user_access(session, passport_of(bob), user_id=charlie.id)
    assert get_user_access(session, passport_of(bob), user_id=bob.id)["username"] == "bob"


def test_holders_have_the_level_or_a_higher_one(session: Session, as_root: Passport) -> None:
    make_user(session, "operator", roles=["operator"])
    make_user(session, "auditor", roles=["auditor"])
    make_user(session, "nobody")
    assert holders(session, as_root, "cards:read") == ["auditor", "operator", "root"]
    assert holders(session, as_root, "cards:operate") == ["operator", "root"]
    assert holders(session, as_root, "cards:admin") == ["root"]


def test_holders_of_a_merchant_see_it_by_name_or_see_all(
    session: Session, as_root: Passport, aurora: Merchant, borealis: Merchant
) -> None:
    make_user(session, "bob", roles=["operator"], merchants=[aurora])
    make_user(session, "charlie", roles=["operator"], merchants=[borealis])
    create_api_key(session, as_root, name="importer", roles=["operator"], merchants=[aurora.id])
    create_api_key(session, as_root, name="elsewhere", roles=["operator"], merchants=[borealis.id])
    assert holders(session, as_root, merchant=aurora) == ["bob", "root", "importer"]
    assert holders(session, as_root, merchant=borealis) == ["charlie", "root", "elsewhere"]


def test_who_cannot_act_now_holds_nothing(session: Session, as_root: Passport) -> None:
    make_user(session, "gone", roles=["operator"], status="disabled")
    revoked = create_api_key(session, as_root, name="revoked", roles=["operator"], merchants="all")
    revoke_api_key(session, as_root, key_id=revoked["id"])
    expired = create_api_key(session, as_root, name="expired", roles=["operator"], merchants="all")
    past = utc_now() - timedelta(minutes=1)
    session.execute(sa.update(ApiKey).where(ApiKey.id == expired["id"]).values(expires_at=past))
    assert holders(session, as_root) == ["root"]


def test_caller_sees_only_holders_within_their_own_merchants(
    session: Session, as_root: Passport, aurora: Merchant, borealis: Merchant
) -> None:
    bob = make_user(session, "bob", roles=["operator"], merchants=[aurora])
    make_user(session, "both", roles=["operator"], merchants=[aurora, borealis])
    create_api_key(session, as_root, name="everywhere", roles=["operator"], merchants="all")
    assert holders(session, passport_of(bob)) == ["bob"]
    assert holders(session, passport_of(bob), merchant=borealis) == []


def test_pages_hold_each_holder_once_with_the_roles_that_give_it(session: Session, as_root: Passport) -> None:
    make_user(session, "bob", roles=["auditor", "operator"])
    create_api_key(session, as_root, name="first", roles=["operator"], merchants="all")
    create_api_key(session, as_root, name="second", roles=["operator"], merchants="all")
    seen, cursor = [], None
    for _ in range(4):
        page = list_permission_holders(session, as_root, permission="cards:operate", limit=1, cursor=cursor)
        seen += [(item["name"], item["type"], item["level"], item["roles"]) for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == [
        ("bob", "user", "operate", ["operator"]),
        ("root", "user", "admin", ["administrator"]),
        ("second", "api_key", "operate", ["operator"]),
        ("first", "api_key", "operate", ["operator"]),
    ]


@pytest.mark.parametrize("permission", ["cards", "cards:none", "cards:write", "card:read", "", ":"])
def test_permission_that_does_not_exist_is_refused(session: Session, as_root: Passport, permission: str) -> None:
    with pytest.raises(InvalidRequest):
        holders(session, as_root, permission)
