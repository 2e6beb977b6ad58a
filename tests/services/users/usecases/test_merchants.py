"""What is done to merchants."""

from dataclasses import replace

import pytest
from sqlalchemy.orm import Session

from services.users import queries
from services.users.usecases import merchants
from shared.contracts.users import GrantExceedsOwn, MerchantCodeTaken, MerchantNotFound
from shared.passport import Passport
from tests.services.users.conftest import events


def scoped(passport: Passport, *merchant_ids: str) -> Passport:
    return replace(passport, merchants=frozenset(merchant_ids))


def test_new_merchant_is_told_with_all_that_copies_need(session: Session, as_root: Passport) -> None:
    view = merchants.create_merchant(session, as_root, code="AURORA", name="Aurora 极光")
    [event] = events(session, "MerchantCreated")
    assert event["payload"] == {
        "merchant_id": view["id"],
        "code": "AURORA",
        "name": "Aurora 极光",
        "status": "active",
        "version": 1,
    }
    assert event["merchant_id"] == view["id"]


def test_taken_code_is_refused_in_any_letter_case(session: Session, as_root: Passport) -> None:
    merchants.create_merchant(session, as_root, code="AURORA", name="Aurora")
    other = merchants.create_merchant(session, as_root, code="BOREALIS", name="Borealis")
    with pytest.raises(MerchantCodeTaken), session.begin_nested():
        merchants.create_merchant(session, as_root, code="aurora", name="Another")
    with pytest.raises(MerchantCodeTaken):
        merchants.update_merchant(session, as_root, merchant_id=other["id"], changes={"code": "Aurora"})


def test_each_change_is_a_version_with_before_and_after(session: Session, as_root: Passport) -> None:
    id_ = merchants.create_merchant(session, as_root, code="AURORA", name="Aurora")["id"]
    merchants.update_merchant(session, as_root, merchant_id=id_, changes={"name": "Dawn"})
    merchants.update_merchant(session, as_root, merchant_id=id_, changes={"name": "Dawn"})
    merchants.update_merchant(session, as_root, merchant_id=id_, changes={"status": "disabled"})
    told = [(e["payload"]["version"], e["payload"]["changes"]) for e in events(session, "MerchantUpdated")]
    assert told == [
        (2, {"name": {"before": "Aurora", "after": "Dawn"}}),
        (3, {"status": {"before": "active", "after": "disabled"}}),
    ]


def test_foreign_merchant_does_not_exist(session: Session, as_root: Passport) -> None:
    aurora = merchants.create_merchant(session, as_root, code="AURORA", name="Aurora")
    borealis = merchants.create_merchant(session, as_root, code="BOREALIS", name="Borealis")
    charlie = scoped(as_root, borealis["id"])
    assert [m["id"] for m in queries.list_merchants(session, charlie, limit=50)["items"]] == [borealis["id"]]
    for merchant_id in (aurora["id"], "mer_unknown"):
        with pytest.raises(MerchantNotFound):
            queries.get_merchant(session, charlie, merchant_id=merchant_id)
        with pytest.raises(MerchantNotFound):
            merchants.update_merchant(session, charlie, merchant_id=merchant_id, changes={"name": "x"})


def test_merchant_is_made_only_by_somebody_who_sees_all(session: Session, as_root: Passport) -> None:
    with pytest.raises(GrantExceedsOwn):
        merchants.create_merchant(session, scoped(as_root), code="AURORA", name="Aurora")


def test_filters_narrow(session: Session, as_root: Passport) -> None:
    aurora = merchants.create_merchant(session, as_root, code="AUR-1", name="Dawn")
    closed = merchants.create_merchant(session, as_root, code="BOR-1", name="Night", status="disabled")

    def found(**filters: str) -> list[str]:
        return [m["id"] for m in queries.list_merchants(session, as_root, limit=50, **filters)["items"]]

    assert found(q="aur") == [aurora["id"]]
    assert found(q="nigh") == [closed["id"]]
    assert found(status="active") == [aurora["id"]]
    assert found() == [closed["id"], aurora["id"]]
