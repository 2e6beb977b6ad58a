"""Explanations: a balance by its entries and their proof, a refusal by its rule, a fee by its rate."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.explanations import MET, RULES, exact_fee, rule_of
from services.ledger.queries.entries import AccountNotFound
from services.ledger.queries.explanations import (
    FEE_ENTRIES_MAX,
    explain_balance,
    explain_change,
    explain_fee,
    explain_refusal,
)
from shared import idempotency
from shared.contracts.explanations import RefusalNotFound
from shared.contracts.ledger import InsufficientBalance, OrderNotFound
from shared.contracts.users import MerchantMissing, MerchantNotFound
from shared.errors import Conflict, InvalidRequest
from shared.passport import Passport
from shared.times import utc_now
from tests.conftest import AURORA, BOREALIS, person
from tests.services.ledger.conftest import call_of, change, post_all, raw_change, single
from tests.services.ledger.mismatches import add_world, correct, record, reverse, the_one
from tests.services.ledger.orders import ALICE, create, fund, refund, settle
from tests.services.ledger.test_orders_properties import archive


@pytest.fixture
def books(session_of: Callable[[str], Session]) -> Session:
    """A ledger with two merchants, a channel, and 100.00 of user-1's."""
    session = session_of("ledger")
    add_world(session)
    fund(session, "100.00")
    return session


def balance(books: Session, passport: Passport = ALICE, **which: Any) -> Any:
    asked: dict[str, Any] = dict.fromkeys(("user_id", "card_id", "merchant_id", "from_time", "at"))
    return explain_balance(books, passport, **asked | {"currency": "CNY"} | which)


def test_balance_is_its_opening_and_what_changed_by_type(books: Session) -> None:
    order = create(books, kind="payment", amount="30.00")
    settle(books, order["order_no"])
    refund(books, order["order_no"], "5.00")
    fund(books, "20.00")
    create(books, kind="purchase", amount="7.00", order_no="holds")
    found = balance(books, user_id="user-1")
    assert (found["opening"], found["closing"]) == (
        {"balance": "0", "version": 0}, {"balance": "95.00", "version": 4},
    )  # fmt: skip
    assert [(t["type"], t["count"], t["increase"], t["decrease"], t["net"]) for t in found["changes"]] == [
        (321, 2, "120.00", "0", "120.00"),
        (323, 1, "0", "-30.00", "-30.00"),
        (324, 1, "5.00", "0", "5.00"),
    ]
    assert (found["held"], found["available"]) == ("7.00", "88.00")
    assert found["holds"] == [{"order_no": "holds", "kind": "purchase", "held": "7.00"}]
    assert (found["proof"]["ok"], found["proof"]["text"]) == (True, "proved: 4 rows, 0 gaps")


def test_balance_between_two_instants(books: Session) -> None:
    between = books.scalar(sa.text("select clock_timestamp()"))
    fund(books, "20.00")
    later = books.scalar(sa.text("select clock_timestamp()"))
    fund(books, "1.00")
    first = balance(books, user_id="user-1", at=between)
    assert (first["closing"]["balance"], first["proof"]["entries"], first["held"]) == ("100.00", 1, None)
    middle = balance(books, user_id="user-1", from_time=between, at=later)
    assert (middle["opening"]["balance"], middle["closing"]["balance"]) == ("100.00", "120.00")
    assert [(t["count"], t["net"]) for t in middle["changes"]] == [(1, "20.00")]
    assert middle["proof"]["ok"]
    with pytest.raises(InvalidRequest, match="later than at"):
        balance(books, user_id="user-1", from_time=later, at=between)


@pytest.mark.parametrize(
    ("tampering", "fault"),
    [
        ("update entries set note = 'x' where version = 2", "changed"),
        ("delete from entries where version = 2", "gaps"),
        ("delete from entries where version = 3", None),
    ],
)
def test_tampered_entry_is_not_proved(books: Session, tampering: str, fault: str | None) -> None:
    fund(books, "20.00")
    fund(books, "1.00")
    books.execute(sa.text(tampering))
    proof = balance(books, user_id="user-1")["proof"]
    if fault is None:  # what was cut off at the end shows only beside the account, which the whole proof looks at
        assert (proof["ok"], proof["entries"]) == (True, 2)
        return
    assert not proof["ok"]
    assert proof[fault] == 1


def test_balance_goes_on_from_an_archive(books: Session) -> None:
    fund(books, "20.00")
    books.execute(
        sa.text(
            "insert into archived_openings (account_id, version, balance, digest)"
            " select account_id, version, balance_after, digest from entries where version = 1"
        )
    )
    books.execute(sa.text("delete from entries where version = 1"))
    found = balance(books, user_id="user-1")
    assert (found["opening"], found["opening_is_archived"]) == ({"balance": "100.00", "version": 1}, True)
    assert (found["closing"]["balance"], found["proof"]["ok"]) == ("120.00", True)


def test_balance_at_an_instant_that_left_for_an_archive_is_refused_and_not_made_up(books: Session) -> None:
    now = utc_now()
    archive(books)
    fund(books, "20.00", user_id="young")
    with pytest.raises(InvalidRequest) as refusal:
        balance(books, user_id="user-1", at=now)
    assert "archived-entries" in str(refusal.value.errors)
    assert balance(books, user_id="young", at=now)["closing"]["balance"] == "0"
    after = balance(books, user_id="user-1", at=datetime(2099, 1, 1, tzinfo=UTC))
    assert (after["closing"]["balance"], after["opening_is_archived"]) == ("100.00", True)


def test_which_account_is_meant(books: Session, bob: Passport, charlie: Passport) -> None:
    fund(books, "5.00", user_id=None)
    fund(books, "7.00", merchant_id=BOREALIS)
    assert balance(books, merchant_id=AURORA)["closing"]["balance"] == "5.00"
    assert balance(books, bob, user_id="user-1")["closing"]["balance"] == "100.00"
    assert balance(books, charlie, user_id="user-1")["closing"]["balance"] == "7.00"
    assert balance(books, user_id="user-1", merchant_id=BOREALIS)["holder_id"] == "user-1"
    for wrong in ({"user_id": "user-1"}, {"user_id": "user-1", "card_id": "c"}, {}):
        with pytest.raises(InvalidRequest):
            balance(books, **wrong)
    for hidden in ({"user_id": "nobody"}, {"user_id": "user-1", "merchant_id": AURORA}, {"merchant_id": AURORA}):
        with pytest.raises(AccountNotFound):
            balance(books, charlie, **hidden)


@pytest.mark.parametrize(
    ("fields", "rule", "code"),
    [
        ({"colour": "red"}, "shape", "invalid_request"),
        ({"type": 999}, "type", "unknown_balance_type"),
        ({"type": 511}, "type", "balance_type_reserved"),
        ({"amount": "1.001"}, "amount", "invalid_money"),
        ({"amount": "-1.00"}, "sign", "wrong_sign"),
        ({"order_no": None}, "order_no", "order_number_required"),
        ({"type": 326}, "reason", "reason_required"),
        ({"type": 324, "order_no": "known"}, "order", "refunded_through_order"),
        ({"type": 323, "amount": "-1.00", "order_no": "known"}, "order", "settled_through_order"),
        ({"type": 323, "amount": "-95.00"}, "balance", "insufficient_balance"),
    ],
)
def test_rule_that_refuses_a_change_is_the_one_that_posting_refuses_it_by(
    books: Session, fields: dict[str, Any], rule: str, code: str
) -> None:
    settle(books, create(books, kind="payment", amount="1.00", order_no="known")["order_no"])
    create(books, kind="purchase", amount="10.00", order_no="holds")
    count = books.scalar(sa.text("select count(*) from entries"))
    asked = raw_change(**{"amount": "1.00"} | fields)
    found = explain_change(books, ALICE, change=asked)
    assert (found["is_allowed"], found["rule"]) == (False, rule)
    assert found["refusal"] is not None
    assert found["refusal"]["code"] == code
    assert [r["rule"] for r in found["rules"]] == list(RULES[: RULES.index(rule) + 1])
    assert [r["ok"] for r in found["rules"]] == [True] * (len(found["rules"]) - 1) + [False]
    if rule == "balance":
        assert (found["balance"], found["held"], found["available"], found["short_by"]) == (
            "99.00", "10.00", "89.00", "6.00",
        )  # fmt: skip
        assert [h["order_no"] for h in found["holds"]] == ["holds"]
        [outcome] = post_all(books, single(change(**asked)))
        assert isinstance(outcome, InsufficientBalance)
    assert books.scalar(sa.text("select count(*) from entries")) == count


def test_permission_refuses_an_admins_type_to_others(books: Session, bob: Passport) -> None:
    asked = raw_change(type=326, reason="x")
    found = explain_change(books, bob, change=asked)
    assert (found["rule"], found["may_post"]) == ("permission", True)
    assert not explain_change(books, person("Dora", "auditor", None), change=raw_change())["may_post"]


def test_change_that_would_be_posted_meets_every_rule(books: Session) -> None:
    found = explain_change(books, ALICE, change=raw_change(type=323, amount="-40.00"))
    assert (found["is_allowed"], found["balance_after"], found["refusal"]) == (True, "60.00", None)
    assert [r["rule"] for r in found["rules"]] == list(MET)


def test_change_of_a_foreign_merchant_is_not_explained(books: Session, charlie: Passport) -> None:
    with pytest.raises(MerchantNotFound):
        explain_change(books, charlie, change=raw_change())
    with pytest.raises(MerchantMissing):
        explain_change(books, ALICE, change=raw_change(merchant_id="mer_unheard"))


def test_kept_refusal_is_explained_to_whom_it_was_said(books: Session, bob: Passport, charlie: Passport) -> None:
    refusal = InsufficientBalance(available="89.00", currency="CNY")
    idempotency.keep(books, call_of(bob, key="k-1", request_id="req_refused"), refusal=refusal)
    for somebody in (bob, ALICE):
        found = explain_refusal(books, somebody, request_id="req_refused")
        assert (found["rule"], found["refusal"]["code"]) == ("balance", "insufficient_balance")
        assert found["facts"] == {"available": "89.00", "currency": "CNY"}
    for somebody, request_id in ((charlie, "req_refused"), (ALICE, "req_other")):
        with pytest.raises(RefusalNotFound):
            explain_refusal(books, somebody, request_id=request_id)
    books.execute(sa.text("set local enable_seqscan = off"))
    asking = "explain select error from idempotency_keys where error is not null"
    plan = books.scalars(sa.text(f"{asking} and (error::jsonb -> 'extra' ->> 'request_id') = 'x'")).all()
    assert any("ix_idempotency_keys_refused" in line for line in plan)


def test_fee_is_explained_by_the_rate_that_the_order_was_made_with(books: Session, bob: Passport) -> None:
    books.execute(sa.text("update channels set config = jsonb_build_object('fee_percent', '0.55')"))
    made = create(books, kind="recharge", amount="12.30")
    books.execute(sa.text("update channels set config = jsonb_build_object('fee_percent', '9')"))
    settle(books, made["order_no"])
    found = explain_fee(books, bob, order_no=made["order_no"])
    assert (found["amount"], found["fee_percent"], found["fee_source"]) == ("12.30", "0.55", "channel")
    assert (found["exact"], found["rounding"], found["fee"], found["charged"]) == (
        "0.06765", "half up, to 2 digits", "0.07", "0.07",
    )  # fmt: skip
    assert [entry["type"] for entry in found["entries"]] == [521]


def test_fee_of_a_corrected_order_is_that_of_the_amount_it_was_made_with(books: Session) -> None:
    books.execute(sa.text("update channels set config = jsonb_build_object('fee_percent', '10')"))
    made = create(books, kind="recharge", amount="10.00")
    record(books, made["order_no"], amount=2000, at=utc_now())
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    found = explain_fee(books, ALICE, order_no=made["order_no"])
    assert (found["amount"], found["exact"], found["fee"], found["charged"]) == ("10.00", "1", "1.00", "1.00")
    reverse(books, mismatch["id"])
    assert explain_fee(books, ALICE, order_no=made["order_no"])["charged"] == "0"


def test_fee_that_was_charged_stays_so_when_its_entry_leaves_the_log(books: Session) -> None:
    books.execute(sa.text("update channels set config = jsonb_build_object('fee_percent', '10')"))
    made = create(books, kind="recharge", amount="10.00")
    settle(books, made["order_no"])
    archive(books)
    found = explain_fee(books, ALICE, order_no=made["order_no"])
    assert (found["fee"], found["charged"], found["entries"]) == ("1.00", "1.00", [])


def test_fee_that_was_charged_and_given_back_many_times_is_charged_once(books: Session) -> None:
    books.execute(sa.text("update channels set config = jsonb_build_object('fee_percent', '10')"))
    made = create(books, kind="recharge", amount="10.00")
    record(books, made["order_no"], at=utc_now())
    mismatch = the_one(books)
    for _ in range(FEE_ENTRIES_MAX // 2):
        correct(books, mismatch["id"])
        reverse(books, mismatch["id"])
    correct(books, mismatch["id"])
    found = explain_fee(books, ALICE, order_no=made["order_no"])
    assert (found["charged"], len(found["entries"])) == ("1.00", FEE_ENTRIES_MAX)


def test_fee_of_a_foreign_order_is_not_explained(books: Session, charlie: Passport) -> None:
    made = create(books)
    with pytest.raises(OrderNotFound):
        explain_fee(books, charlie, order_no=made["order_no"])


def test_exact_fee_is_written_in_the_currencys_units() -> None:
    assert exact_fee(1230, Decimal("0.55"), "CNY") == "0.06765"
    assert exact_fee(1230, Decimal(0), "CNY") == "0"
    assert exact_fee(1000, Decimal(5), "JPY") == "50"


def test_every_refusal_has_a_rule() -> None:
    assert rule_of(InvalidRequest()) == "shape"
    assert rule_of(OrderNotFound()) == "merchant"
    assert rule_of(Conflict()) == "state"
