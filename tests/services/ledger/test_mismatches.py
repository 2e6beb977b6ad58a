"""Mismatches: found by what people look for, alike ones grouped, closed and reopened with a reason, many at once."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.mismatches import Verb
from services.ledger.queries.mismatches import MismatchFilter, get_mismatch, list_mismatch_groups, list_mismatches
from services.ledger.queries.orders import get_order
from services.ledger.usecases import mismatches
from shared.contracts.mismatches import CorrectionStands, MismatchNotFound, MismatchNotOpen
from shared.contracts.users import MerchantMissing
from shared.errors import InvalidRequest
from shared.paging import InvalidCursor, encode_cursor
from shared.passport import Passport
from shared.times import utc_now
from tests.conftest import AURORA, BOREALIS
from tests.services.ledger.mismatches import (
    ALWAYS_WAITS,
    CHANNEL,
    WHY,
    act,
    add_world,
    correct,
    found,
    order,
    paid,
    reconcile_all,
    record,
)
from tests.services.ledger.orders import ALICE, events, fund
from tests.services.ledger.worlds import add_channel


@pytest.fixture
def books(session_of: Callable[[str], Session]) -> Session:
    """A ledger with mismatches of two merchants, in two currencies, and one of nobody's."""
    session = session_of("ledger")
    add_world(session)
    add_channel(session, "stripe")
    for amount in (900, 900, 400):
        record(session, paid(session)["order_no"], amount=amount)
    record(session, paid(session, merchant_id=BOREALIS, currency="USD")["order_no"], amount=900, currency="USD")
    record(session, "nobodys", amount=5000)
    reconcile_all(session)
    return session


def ids(books: Session, passport: Passport = ALICE, **wanted: Any) -> set[str]:
    items = list_mismatches(books, passport, MismatchFilter(**wanted), limit=500, cursor=None)["items"]
    return {item["id"] for item in items}


def test_list_is_cut_to_merchants_and_what_is_nobodys_needs_all(
    books: Session, bob: Passport, charlie: Passport
) -> None:
    everything = found(books)
    assert len(everything) == 5
    assert {m["merchant_id"] for m in found(books, passport=bob)} == {AURORA}
    assert [m["currency"] for m in found(books, passport=charlie)] == ["USD"]
    nobodys = next(m for m in everything if m["kind"] == "missing_local")
    with pytest.raises(MismatchNotFound):
        get_mismatch(books, bob, mismatch_id=nobodys["id"])
    with pytest.raises(MismatchNotFound):
        act(books, nobodys["id"], Verb.IGNORE, passport=bob)


def test_each_filter_leaves_what_it_says(books: Session) -> None:
    everything = {m["id"]: m for m in found(books)}
    one = next(m for m in everything.values() if m["difference"] == "-6.00")
    today, now = utc_now().date(), utc_now()
    assert ids(books, kinds=["missing_local"]) == {m for m in everything if everything[m]["kind"] == "missing_local"}
    assert len(ids(books, kinds=["missing_local", "amount_mismatch"])) == 5
    assert ids(books, statuses=["ignored"]) == set()
    assert (len(ids(books, channel=CHANNEL)), ids(books, channel="stripe")) == (5, set())
    assert len(ids(books, day=today)) == 5
    assert ids(books, order_no=one["order_no"]) == ids(books, upstream_ref=one["upstream_ref"]) == {one["id"]}
    assert len(ids(books, currency="USD")) == len(ids(books, merchant_id=BOREALIS)) == 1
    assert len(ids(books, min_difference=Decimal("1.00"))) == 5
    assert ids(books, min_difference=Decimal("9999999999999999999")) == set()
    assert len(ids(books, min_difference=Decimal("1.005"))) == 2
    first = books.scalar(sa.text("select min(opened_at) from mismatches"))
    assert ids(books, opened_from=now) == ids(books, opened_to=first) == set()
    assert len(ids(books, opened_from=first, opened_to=now)) == 5


def test_pages_come_one_after_the_other(books: Session) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        page = list_mismatches(books, ALICE, MismatchFilter(), limit=2, cursor=cursor)
        seen += [m["id"] for m in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [m["id"] for m in found(books)][::-1]
    for broken in ("x", encode_cursor([1]), encode_cursor(["x", "y"]), encode_cursor([1, 2])):
        with pytest.raises(InvalidCursor):
            list_mismatches(books, ALICE, MismatchFilter(), limit=2, cursor=broken)


def test_alike_ones_are_a_group_with_count_and_sum(books: Session, bob: Passport) -> None:
    page = list_mismatch_groups(books, ALICE, MismatchFilter(), limit=50, cursor=None)
    groups = [(g["kind"], g["currency"], g["difference"], g["count"], g["sum"]) for g in page["items"]]
    assert groups == [
        ("amount_mismatch", "CNY", "-1.00", 2, "-2.00"),
        ("amount_mismatch", "CNY", "-6.00", 1, "-6.00"),
        ("amount_mismatch", "USD", "-1.00", 1, "-1.00"),
        ("missing_local", "CNY", "50.00", 1, "50.00"),
    ]
    assert page["items"][0]["differing"] == ["amount"]
    first = list_mismatch_groups(books, ALICE, MismatchFilter(), limit=3, cursor=None)
    rest = list_mismatch_groups(books, ALICE, MismatchFilter(), limit=3, cursor=first["next_cursor"])
    assert first["items"] + rest["items"] == page["items"]
    mine = list_mismatch_groups(books, bob, MismatchFilter(), limit=50, cursor=None)["items"]
    assert [(g["currency"], g["count"]) for g in mine] == [("CNY", 2), ("CNY", 1)]
    for place in ([1, 2, 3, 4, 5, 6], [1.5, "a", "b", [], "c", 1], [1, "a", "b", ["\0"], "c", 1], [1]):
        with pytest.raises(InvalidCursor):
            list_mismatch_groups(books, ALICE, MismatchFilter(), limit=3, cursor=encode_cursor(place))


def test_both_sides_stand_in_a_mismatch_and_what_differs_inline(books: Session) -> None:
    one = next(m for m in found(books) if m["difference"] == "-6.00")
    assert one["differing"] == [{"field": "amount", "local": "10.00", "upstream": "4.00"}]
    detail = get_mismatch(books, ALICE, mismatch_id=one["id"])
    assert detail["local"] is not None
    assert detail["upstream"] is not None
    assert (detail["local"]["status"], detail["local"]["amount"]) == ("settled", "10.00")
    assert (detail["upstream"]["status"], detail["upstream"]["amount"]) == ("success", "4.00")
    assert [row["act"] for row in detail["history"]] == ["find"]
    assert get_order(books, ALICE, order_no=one["order_no"])["mismatches"] == [one]


@pytest.mark.parametrize(
    ("verb", "status", "resolution", "event"),
    [
        (Verb.RECONCILE, "reconciled", "agreed", "MismatchReconciled"),
        (Verb.IGNORE, "ignored", "ignored", "MismatchIgnored"),
    ],
)
def test_closing_moves_nothing_and_reopening_takes_it_back(
    books: Session, bob: Passport, verb: Verb, status: str, resolution: str, event: str
) -> None:
    one = next(m for m in found(books) if m["merchant_id"] == AURORA)
    count = books.scalar(sa.text("select count(*) from entries"))
    closed = act(books, one["id"], verb, passport=bob)
    assert (closed["status"], closed["resolution"], closed["version"]) == (status, resolution, 2)
    assert (closed["history"][0]["act"], closed["history"][0]["actor_name"]) == (verb.value, "Bob")
    assert closed["history"][0]["reason"] == WHY
    with pytest.raises(MismatchNotOpen):
        act(books, one["id"], verb)
    reconcile_all(books)
    assert one["id"] not in {m["id"] for m in found(books, "open")}
    opened = act(books, one["id"], Verb.REOPEN)
    assert (opened["status"], opened["resolution"]) == ("open", None)
    assert books.scalar(sa.text("select count(*) from entries")) == count
    told = [e for e in events(books) if e in (event, "MismatchReopened")]
    assert told == [event, "MismatchReopened"]
    with pytest.raises(InvalidRequest):
        mismatches.close_or_reopen(books, ALICE, mismatch_id=one["id"], verb=verb, reason="  ")


def test_reopening_takes_a_proposal_back_and_leaves_a_correction_alone(books: Session) -> None:
    one = next(m for m in found(books) if m["merchant_id"] == AURORA)
    correct(books, one["id"], terms=ALWAYS_WAITS)
    after = act(books, one["id"], Verb.REOPEN)
    assert (after["status"], after["corrections"][0]["status"]) == ("open", "void")
    fund(books, "100.00")
    correct(books, one["id"])
    with pytest.raises(CorrectionStands):
        act(books, one["id"], Verb.REOPEN)


def bulk(books: Session, wanted: list[str], to_do: Any, *, passport: Passport = ALICE, moves_money: bool = True) -> Any:
    return mismatches.act_on_mismatches(books, passport, ids=wanted, moves_money=moves_money, act=to_do)


def test_bulk_answers_for_each_and_what_is_refused_leaves_nothing(books: Session, bob: Passport) -> None:
    everything = found(books)
    nobodys = next(m["id"] for m in everything if m["kind"] == "missing_local")
    mine = [m["id"] for m in everything if m["merchant_id"] == AURORA]
    closed = mine.pop()
    act(books, closed, Verb.IGNORE)
    fund(books, "100.00")
    wanted = [nobodys, *mine, closed, "mis_none"]
    known = len(events(books))
    answer = bulk(books, wanted, lambda one: correct(books, one)["status"])
    assert [item["id"] for item in answer["items"]] == wanted
    assert [item.get("status") or item["error"]["code"] for item in answer["items"]] == [
        "order_terms_required", "corrected", "corrected", "mismatch_not_open", "mismatch_not_found",
    ]  # fmt: skip
    assert (answer["done"], answer["refused"]) == (2, 3)
    assert [e for e in events(books)[known:] if e.startswith("Correction")] == ["CorrectionApplied"] * 2
    refused = bulk(books, wanted, lambda one: act(books, one, Verb.RECONCILE, passport=bob)["status"], passport=bob)
    assert refused["items"][0]["error"]["code"] == "mismatch_not_found"


def test_bulk_takes_back_a_row_that_was_half_done(books: Session) -> None:
    poor = paid(books, amount="100.00", user_id="poor")
    record(books, poor["order_no"], amount=1000)
    reconcile_all(books)
    fund(books, "-95.00", type=323, user_id="poor")
    one = next(m for m in found(books, "open") if m["order_no"] == poor["order_no"])
    other = next(m for m in found(books, "open") if m["kind"] == "amount_mismatch" and m["order_no"] != one["order_no"])
    answer = bulk(books, [one["id"], other["id"]], lambda mismatch_id: correct(books, mismatch_id)["status"])
    assert answer["items"][0]["error"]["code"] == "insufficient_balance"
    assert answer["items"][1]["status"] == "corrected"
    assert (order(books, poor["order_no"]).amount, order(books, other["order_no"]).amount != 1000) == (10_000, True)
    assert get_mismatch(books, ALICE, mismatch_id=one["id"])["corrections"] == []


def test_bulk_lets_the_kernel_fetch_a_merchant(books: Session) -> None:
    nobodys = next(m["id"] for m in found(books) if m["kind"] == "missing_local")
    with pytest.raises(MerchantMissing):
        bulk(books, [nobodys], lambda one: correct(books, one, merchant_id="mer_new", kind="recharge"))


@pytest.mark.parametrize("wanted", [[], ["a", "a"], [str(n) for n in range(501)]])
def test_bulk_takes_one_to_five_hundred_different_ids(books: Session, wanted: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        bulk(books, wanted, lambda one: act(books, one, Verb.IGNORE))


def test_order_of_another_channel_shows_none_of_these(books: Session) -> None:
    made = paid(books, channel="stripe", order_no="nobodys")
    assert get_order(books, ALICE, order_no=made["order_no"])["mismatches"] == []
