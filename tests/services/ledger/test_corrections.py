"""What a correction of each kind does in each direction, who may decide on it, and that all of it can be taken back."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.queries.corrections import list_corrections
from services.ledger.queries.mismatches import get_mismatch
from services.ledger.usecases import corrections
from shared.contracts.ledger import InsufficientBalance, OrderNumberTaken, RefundTooLarge
from shared.contracts.mismatches import (
    CorrectionNotApplied,
    CorrectionNotFound,
    CorrectionStands,
    FourEyes,
    MismatchNotFound,
    MismatchOutdated,
    NoProposal,
    NotCorrectable,
    OrderTermsRequired,
    ProposalChanged,
    ProposalOutdated,
    ProposalPending,
)
from shared.contracts.users import MerchantNotFound
from shared.errors import InvalidRequest
from shared.money import format_minor
from shared.times import utc_now
from tests.conftest import AURORA, BOREALIS, person
from tests.services.ledger.mismatches import (
    ALWAYS_WAITS,
    CAROL,
    CHANNEL,
    TERMS,
    WHY,
    add_world,
    approve,
    assert_books_are_right,
    correct,
    counted,
    entries_of,
    found,
    order,
    paid,
    preview,
    reconcile_all,
    record,
    reject,
    reverse,
    says,
    the_one,
)
from tests.services.ledger.orders import ALICE, account, create, events, fail, fund, refund, settle

KINDS = ("recharge", "withdraw", "payment", "purchase", "renewal", "paid_reset")
SETTLED_BY = {"recharge": 321, "withdraw": 322, "payment": 323, "purchase": 331, "renewal": 332, "paid_reset": 233}
ADJUSTED_BY = dict.fromkeys(KINDS, 326) | {"purchase": 335, "renewal": 335}
BUCKET = {
    "recharge": "recharge", "withdraw": "withdrawal", "payment": "consumption", "purchase": "consumption",
    "renewal": "consumption", "paid_reset": "resets",
}  # fmt: skip


@pytest.fixture
def books(session_of: Callable[[str], Session]) -> Session:
    """A ledger with two merchants, a channel, and 500.00 of user-1's."""
    session = session_of("ledger")
    add_world(session)
    fund(session, "500.00")
    return session


def sign(kind: str) -> int:
    return 1 if kind == "recharge" else -1


def ends_well(session: Session) -> None:
    """Nothing is open, another reconciliation finds nothing, and the books are right."""
    assert found(session, "open", "pending_approval") == []
    reconcile_all(session)
    assert found(session, "open") == []
    assert_books_are_right(session)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_update_settles_the_order_as_settling_does_on_the_platforms_day(books: Session, kind: str) -> None:
    made = create(books, kind=kind)
    yesterday = utc_now() - timedelta(days=1)
    ref = record(books, made["order_no"], at=yesterday)
    mismatch = the_one(books)
    assert mismatch["kind"] == "missing_local_update"
    after = correct(books, mismatch["id"])
    row = order(books, made["order_no"])
    assert (after["status"], row.status, row.upstream_ref, row.held) == ("corrected", "settled", ref, 0)
    assert row.settled_at == yesterday
    assert entries_of(books, made["order_no"]) == [(SETTLED_BY[kind], sign(kind) * 1000)]
    [(bucket, amount, day)] = books.execute(sa.text("select bucket, amount, day from correction_entries")).all()
    assert (bucket, amount, day) == (BUCKET[kind], sign(kind) * 1000, yesterday.date())
    ends_well(books)
    reverse(books, mismatch["id"])
    row = order(books, made["order_no"])
    assert (row.status, row.settled_at, row.upstream_ref) == ("pending", None, None)
    assert row.held == (1000 if kind in ("withdraw", "purchase", "renewal") else 0)
    assert entries_of(books, made["order_no"])[1:] == [(ADJUSTED_BY[kind], -sign(kind) * 1000)]
    assert account(books) == (50_000, row.held)
    assert found(books, "open") != []
    assert_books_are_right(books)


def test_missing_update_takes_the_platforms_amount(books: Session) -> None:
    made = create(books, kind="purchase", amount="10.00")
    record(books, made["order_no"], amount=700)
    correct(books, the_one(books)["id"])
    assert (order(books, made["order_no"]).amount, account(books)) == (700, (49_300, 0))
    ends_well(books)


def test_a_fee_is_charged_with_the_settlement_and_given_back_with_its_reversal(books: Session) -> None:
    books.execute(sa.text("update channels set config = jsonb_build_object('fee_percent', '2.5')"))
    made = create(books, kind="purchase", amount="10.00")
    record(books, made["order_no"])
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    assert entries_of(books, made["order_no"]) == [(331, -1000), (521, -25)]
    assert counted(books, made["order_no"]) == [("consumption", -1000), ("fees", -25)]
    ends_well(books)
    reverse(books, mismatch["id"])
    assert sorted(entries_of(books, made["order_no"])[2:]) == [(335, 25), (335, 1000)]
    assert account(books) == (50_000, 1025)
    assert_books_are_right(books)


def test_a_fee_goes_back_with_the_order_that_is_taken_back(books: Session) -> None:
    books.execute(sa.text("update channels set config = jsonb_build_object('fee_percent', '2.5')"))
    made = paid(books, kind="purchase", amount="10.00")
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    assert counted(books, made["order_no"]) == [("consumption", 1000), ("fees", 25)]
    assert account(books) == (50_000, 0)
    ends_well(books)
    reverse(books, mismatch["id"])
    assert (order(books, made["order_no"]).status, account(books)) == ("settled", (48_975, 0))
    assert_books_are_right(books)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("says", [700, 1400])
def test_amount_becomes_the_platforms_by_an_entry_of_the_difference(books: Session, kind: str, says: int) -> None:
    made = paid(books, kind=kind)
    record(books, made["order_no"], amount=says)
    before, _ = account(books)
    mismatch = the_one(books)
    assert (mismatch["kind"], mismatch["difference"]) == ("amount_mismatch", format_minor(says - 1000, "CNY"))
    assert [f["field"] for f in mismatch["differing"]] == ["amount"]
    correct(books, mismatch["id"])
    delta = sign(kind) * (says - 1000)
    assert entries_of(books, made["order_no"])[1:] == [(ADJUSTED_BY[kind], delta)]
    assert counted(books, made["order_no"]) == [(BUCKET[kind], delta)]
    assert (order(books, made["order_no"]).amount, account(books)) == (says, (before + delta, 0))
    ends_well(books)
    reverse(books, mismatch["id"])
    assert (order(books, made["order_no"]).amount, account(books)) == (1000, (before, 0))
    assert [m["id"] for m in found(books, "open")] == [mismatch["id"]]
    assert_books_are_right(books)


def test_refunds_stay_below_what_was_paid_after_an_amount_correction(books: Session) -> None:
    made = paid(books, kind="payment")
    refund(books, made["order_no"], "6.00")
    record(books, made["order_no"], amount=500)
    with pytest.raises(NotCorrectable):
        correct(books, the_one(books)["id"])
    books.execute(sa.text("update upstream_records set amount = 700"))
    reconcile_all(books)
    mismatch = found(books, "open")[0]
    correct(books, mismatch["id"])
    with pytest.raises(RefundTooLarge):
        refund(books, made["order_no"], "1.01")
    assert refund(books, made["order_no"])["status"] == "refunded"
    assert_books_are_right(books)
    reverse(books, mismatch["id"])
    row = order(books, made["order_no"])
    assert (row.status, row.amount, row.refunded) == ("partially_refunded", 1000, 700)
    assert refund(books, made["order_no"])["refunded"] == "10.00"
    assert_books_are_right(books)


def test_refunds_that_came_before_the_order_count_too(books: Session) -> None:
    fund(books, "5.00", type=324, order_no="early")
    paid(books, kind="payment", order_no="early")
    record(books, "early", amount=400)
    with pytest.raises(NotCorrectable):
        correct(books, the_one(books)["id"])


def test_a_reversal_that_would_leave_more_refunded_than_paid_is_refused(books: Session) -> None:
    made = paid(books, kind="payment")
    record(books, made["order_no"], amount=1400)
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    refund(books, made["order_no"], "12.00")
    with pytest.raises(ProposalOutdated):
        reverse(books, mismatch["id"])


@pytest.mark.parametrize("kind", KINDS)
def test_order_that_the_platform_does_not_know_is_taken_back(books: Session, kind: str) -> None:
    made = paid(books, kind=kind)
    mismatch = the_one(books)
    assert mismatch["kind"] == "missing_upstream"
    correct(books, mismatch["id"])
    row = order(books, made["order_no"])
    assert (row.status, row.settled_at, account(books)) == ("failed", None, (50_000, 0))
    assert entries_of(books, made["order_no"])[1:] == [(ADJUSTED_BY[kind], -sign(kind) * 1000)]
    ends_well(books)
    reverse(books, mismatch["id"])
    assert order(books, made["order_no"]).status == "settled"
    assert account(books)[0] == 50_000 + sign(kind) * 1000
    assert_books_are_right(books)


def test_order_with_a_refund_is_taken_back_with_its_refund(books: Session) -> None:
    made = paid(books, kind="purchase")
    refund(books, made["order_no"], "4.00")
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    assert entries_of(books, made["order_no"]) == [(331, -1000), (333, 400), (335, 1000), (335, -400)]
    assert counted(books, made["order_no"]) == [("consumption", 1000), ("refund", -400)]
    assert (order(books, made["order_no"]).refunded, account(books)) == (0, (50_000, 0))
    ends_well(books)
    reverse(books, mismatch["id"])
    row = order(books, made["order_no"])
    assert (row.status, row.refunded, account(books)) == ("partially_refunded", 400, (49_400, 0))
    with pytest.raises(RefundTooLarge):
        refund(books, made["order_no"], "6.01")
    assert refund(books, made["order_no"])["refunded"] == "10.00"
    assert_books_are_right(books)


def test_order_that_failed_at_the_platform_fails(books: Session) -> None:
    made = paid(books, kind="recharge")
    record(books, made["order_no"], status="failed")
    mismatch = the_one(books)
    assert mismatch["kind"] == "status_mismatch"
    correct(books, mismatch["id"])
    assert (order(books, made["order_no"]).status, account(books)) == ("failed", (50_000, 0))
    ends_well(books)


def test_order_that_failed_here_and_was_paid_there_is_settled(books: Session) -> None:
    made = create(books, kind="purchase")
    fail(books, made["order_no"])
    record(books, made["order_no"])
    mismatch = the_one(books)
    assert mismatch["kind"] == "status_mismatch"
    correct(books, mismatch["id"])
    assert (order(books, made["order_no"]).status, account(books)) == ("settled", (49_000, 0))
    ends_well(books)
    reverse(books, mismatch["id"])
    assert (order(books, made["order_no"]).status, account(books)) == ("failed", (50_000, 0))


@pytest.mark.parametrize(("kind", "entry"), [("payment", (324, 1000)), ("recharge", (326, -1000))])
def test_order_that_was_refunded_at_the_platform_is_refunded(books: Session, kind: str, entry: tuple[int, int]) -> None:
    made = paid(books, kind=kind)
    record(books, made["order_no"], status="refunded")
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    row = order(books, made["order_no"])
    assert (row.status, row.refunded, account(books)) == ("refunded", 1000, (50_000, 0))
    assert entries_of(books, made["order_no"])[1:] == [entry]
    ends_well(books)
    reverse(books, mismatch["id"])
    row = order(books, made["order_no"])
    assert (row.status, row.refunded) == ("settled", 0)
    assert_books_are_right(books)


def test_refund_that_the_platform_does_not_know_is_taken_back_and_can_be_given_again(books: Session) -> None:
    made = paid(books, kind="payment")
    refund(books, made["order_no"])
    record(books, made["order_no"])
    correct(books, the_one(books)["id"])
    row = order(books, made["order_no"])
    assert (row.status, row.refunded, account(books)) == ("settled", 0, (49_000, 0))
    ends_well(books)
    assert refund(books, made["order_no"], "10.00")["status"] == "refunded"
    assert_books_are_right(books)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_order_is_made_for_whom_it_is_said_to_be(books: Session, kind: str) -> None:
    ref = record(books, "theirs-1", amount=2500)
    mismatch = the_one(books)
    assert (mismatch["kind"], mismatch["merchant_id"]) == ("missing_local", None)
    with pytest.raises(OrderTermsRequired):
        correct(books, mismatch["id"])
    with pytest.raises(MerchantNotFound):
        correct(books, mismatch["id"], merchant_id="mer_nobody", kind=kind)
    correct(books, mismatch["id"], merchant_id=AURORA, user_id="user-1", kind=kind)
    row = order(books, "theirs-1")
    assert (row.status, row.amount, row.kind, row.upstream_ref, row.channel) == ("settled", 2500, kind, ref, CHANNEL)
    assert entries_of(books, "theirs-1") == [(SETTLED_BY[kind], sign(kind) * 2500)]
    acts = books.scalars(sa.text("select act from order_history where order_id = :i order by id"), {"i": row.id}).all()
    assert acts == ["create", "correct"]
    ends_well(books)
    reverse(books, mismatch["id"])
    assert (order(books, "theirs-1").status, account(books)) == ("failed", (50_000, 0))
    assert_books_are_right(books)
    correct(books, mismatch["id"])
    assert (order(books, "theirs-1").status, account(books)[0]) == ("settled", 50_000 + sign(kind) * 2500)
    ends_well(books)


def test_record_without_a_number_is_given_that_of_the_order_that_is_made(books: Session) -> None:
    record(books, None)
    mismatch = the_one(books)
    correct(books, mismatch["id"], merchant_id=AURORA, kind="recharge")
    assert order(books, mismatch["id"]).holder_type == "merchant"
    assert books.scalar(sa.text("select order_no from upstream_records")) == mismatch["id"]
    ends_well(books)
    reverse(books, mismatch["id"])
    assert books.scalar(sa.text("select order_no from upstream_records")) is None


def test_number_that_an_order_of_another_channel_has_is_taken(books: Session) -> None:
    paid(books, order_no="elsewhere", channel="stripe")
    record(books, "elsewhere")
    mismatch = the_one(books)
    with pytest.raises(OrderNumberTaken):
        correct(books, mismatch["id"], merchant_id=AURORA, kind="recharge")


def test_payment_that_a_balance_change_has_entered_is_not_entered_again(books: Session) -> None:
    fund(books, "10.00", order_no="entered")
    record(books, "entered")
    mismatch = the_one(books)
    for act in (preview, correct):
        with pytest.raises(OrderNumberTaken, match="has moved"):
            act(books, mismatch["id"], merchant_id=AURORA, user_id="user-1", kind="recharge")
    assert entries_of(books, "entered") == [(321, 1000)]


def test_order_that_was_settled_by_a_correction_and_reopened_settles_again(books: Session) -> None:
    made = create(books, kind="recharge")
    record(books, made["order_no"])
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    reverse(books, mismatch["id"])
    assert order(books, made["order_no"]).status == "pending"
    settle(books, made["order_no"])
    assert sum(amount for _, amount in entries_of(books, made["order_no"])) == 1000
    assert_books_are_right(books)


def mismatch_of(books: Session, kind: str) -> Any:
    if kind == "missing_local":
        record(books, "nobodys")
    elif kind == "missing_local_update":
        record(books, create(books, kind="recharge")["order_no"])
    elif kind == "missing_upstream":
        paid(books)
    else:
        number = paid(books)["order_no"]
        record(books, number, amount=900 if kind == "amount_mismatch" else 1000,
               status="failed" if kind == "status_mismatch" else "success")  # fmt: skip
        if kind == "duplicate_upstream":
            record(books, number)
    mismatch = the_one(books)
    assert mismatch["kind"] == kind
    return mismatch


ALL_KINDS = [
    "missing_local", "missing_local_update", "missing_upstream", "amount_mismatch", "status_mismatch",
    "duplicate_upstream",
]  # fmt: skip


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_ours_stands_and_no_money_moves(books: Session, kind: str) -> None:
    mismatch = mismatch_of(books, kind)
    before, count = account(books), books.scalar(sa.text("select count(*) from entries"))
    correct(books, mismatch["id"], "local")
    assert (account(books), books.scalar(sa.text("select count(*) from entries"))) == (before, count)
    ends_well(books)
    reverse(books, mismatch["id"])
    assert books.scalar(sa.text("select count(*) from upstream_records where voided_by is null")) == (
        {"missing_upstream": 0, "duplicate_upstream": 2}.get(kind, 1)
    )
    reconcile_all(books)
    assert [m["id"] for m in found(books, "open")] == [mismatch["id"]]
    correct(books, mismatch["id"], "local")
    ends_well(books)


def test_duplicate_cannot_be_followed(books: Session) -> None:
    with pytest.raises(NotCorrectable):
        correct(books, mismatch_of(books, "duplicate_upstream")["id"])


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"currency": "USD"}, NotCorrectable),
        ({"status": "pending"}, NotCorrectable),
        ({"amount": 0}, NotCorrectable),
    ],
)
def test_what_cannot_be_followed_is_refused(books: Session, fields: dict[str, Any], refusal: type[Exception]) -> None:
    record(books, paid(books)["order_no"], **fields)
    with pytest.raises(refusal):
        correct(books, the_one(books)["id"])


def test_what_is_not_covered_is_refused_and_nothing_changed(books: Session) -> None:
    made = paid(books, amount="100.00", user_id="poor")
    create(books, kind="purchase", amount="60.00", user_id="poor")
    record(books, made["order_no"], amount=1000)
    mismatch = the_one(books)
    told = len(events(books))
    savepoint = books.begin_nested()
    with pytest.raises(InsufficientBalance):
        correct(books, mismatch["id"])
    savepoint.rollback()
    assert preview(books, mismatch["id"])["refusal"]["code"] == "insufficient_balance"
    assert (get_mismatch(books, ALICE, mismatch_id=mismatch["id"])["status"], len(events(books))) == ("open", told)
    assert account(books, "poor") == (10_000, 6_000)


def test_preview_says_what_would_change_and_changes_nothing(books: Session) -> None:
    made = paid(books, kind="payment")
    record(books, made["order_no"], amount=1400)
    mismatch = the_one(books)
    seen = preview(books, mismatch["id"])
    assert seen["order"][0] == {"field": "amount", "before": "10.00", "after": "14.00"}
    [entry] = seen["entries"]
    assert (entry["type"], entry["amount"], entry["balance"], entry["bucket"]) == (
        326,
        "-4.00",
        "486.00",
        "consumption",
    )
    assert (seen["needs_approval"], seen["refusal"]) == (False, None)
    assert preview(books, mismatch["id"], terms=ALWAYS_WAITS)["needs_approval"]
    assert found(books, "open") == [mismatch]
    [applied] = correct(books, mismatch["id"])["corrections"]
    assert applied["content_sha256"] == seen["content_sha256"]
    assert account(books) == (48_600, 0)


def test_over_the_threshold_a_second_person_decides(books: Session) -> None:
    made = paid(books, amount="2000.00")
    record(books, made["order_no"], amount=99_999)
    mismatch = the_one(books)
    waiting = correct(books, mismatch["id"])
    assert (waiting["status"], order(books, made["order_no"]).amount) == ("pending_approval", 200_000)
    assert len(entries_of(books, made["order_no"])) == 1
    for refused in (approve, reject):
        with pytest.raises(FourEyes):
            refused(books, mismatch["id"], passport=ALICE)
    done = approve(books, mismatch["id"], content_sha256=waiting["corrections"][0]["content_sha256"])
    assert (done["status"], order(books, made["order_no"]).amount) == ("corrected", 99_999)
    assert [act["act"] for act in done["history"]] == ["apply", "approve", "propose", "find"]
    assert (done["corrections"][0]["proposed_by_name"], done["corrections"][0]["decided_by_name"]) == ("Alice", "Carol")
    with pytest.raises(NoProposal):
        approve(books, mismatch["id"])
    ends_well(books)


def test_at_the_threshold_one_person_is_enough(books: Session) -> None:
    made = paid(books, amount="2000.00")
    record(books, made["order_no"], amount=100_000)
    assert correct(books, the_one(books)["id"])["status"] == "corrected"


def test_leaving_a_large_record_aside_needs_a_second_person_too(books: Session) -> None:
    record(books, "nobodys", amount=100_001)
    assert correct(books, the_one(books)["id"], "local")["status"] == "pending_approval"


def test_edited_proposal_voids_the_one_before_and_its_approval(books: Session) -> None:
    made = paid(books, amount="50.00")
    record(books, made["order_no"], amount=4000)
    mismatch = the_one(books)
    first = correct(books, mismatch["id"], terms=ALWAYS_WAITS)["corrections"][0]
    second = correct(books, mismatch["id"], "local", terms=ALWAYS_WAITS)["corrections"][0]
    assert first["content_sha256"] != second["content_sha256"]
    with pytest.raises(ProposalChanged):
        approve(books, mismatch["id"], content_sha256=first["content_sha256"])
    after = approve(books, mismatch["id"], content_sha256=second["content_sha256"])
    assert [(c["to"], c["status"]) for c in after["corrections"]] == [("local", "applied"), ("upstream", "void")]
    assert order(books, made["order_no"]).amount == 5000


def test_who_edits_a_proposal_is_who_proposed_it(books: Session) -> None:
    record(books, paid(books)["order_no"], amount=900)
    mismatch = the_one(books)
    correct(books, mismatch["id"], terms=ALWAYS_WAITS)
    correct(books, mismatch["id"], terms=ALWAYS_WAITS, passport=CAROL, reason="Said better.")
    with pytest.raises(FourEyes):
        approve(books, mismatch["id"], passport=CAROL)
    assert approve(books, mismatch["id"], passport=ALICE)["status"] == "corrected"


@pytest.mark.parametrize("change", ["order", "record", "void"])
def test_proposal_whose_sides_changed_since_needs_a_new_one(books: Session, change: str) -> None:
    made = paid(books, kind="payment")
    record(books, made["order_no"], amount=900)
    mismatch = the_one(books)
    correct(books, mismatch["id"], terms=ALWAYS_WAITS)
    if change == "order":
        refund(books, made["order_no"], "1.00")
    else:
        books.execute(
            sa.text("update upstream_records set " + ("amount = 800" if change == "record" else "voided_by = 'x'"))
        )
    with pytest.raises(ProposalOutdated):
        approve(books, mismatch["id"])
    assert order(books, made["order_no"]).amount == 1000
    if change != "void":
        correct(books, mismatch["id"], terms=ALWAYS_WAITS)
        assert approve(books, mismatch["id"])["status"] == "corrected"


def test_rejected_proposal_leaves_the_mismatch_open(books: Session) -> None:
    record(books, paid(books)["order_no"], amount=900)
    mismatch = the_one(books)
    correct(books, mismatch["id"], terms=ALWAYS_WAITS)
    after = reject(books, mismatch["id"])
    assert (after["status"], after["corrections"][0]["status"]) == ("open", "rejected")
    assert correct(books, mismatch["id"])["status"] == "corrected"


def test_mismatch_that_heals_takes_its_proposal_along(books: Session) -> None:
    record(books, paid(books)["order_no"], amount=900)
    mismatch = the_one(books)
    correct(books, mismatch["id"], terms=ALWAYS_WAITS)
    books.execute(sa.text("update upstream_records set amount = 1000"))
    reconcile_all(books)
    after = get_mismatch(books, ALICE, mismatch_id=mismatch["id"])
    assert (after["status"], after["resolution"], after["corrections"][0]["status"]) == ("reconciled", "healed", "void")
    with pytest.raises(NoProposal):
        approve(books, mismatch["id"])


def test_program_neither_proposes_what_waits_nor_decides(books: Session) -> None:
    program = replace(person("Robot", "administrator", None), actor_type="api_key")
    record(books, paid(books)["order_no"], amount=900)
    mismatch = the_one(books)
    savepoint = books.begin_nested()
    with pytest.raises(FourEyes):
        correct(books, mismatch["id"], passport=program, terms=ALWAYS_WAITS)
    savepoint.rollback()
    correct(books, mismatch["id"], terms=ALWAYS_WAITS)
    with pytest.raises(FourEyes):
        approve(books, mismatch["id"], passport=program)
    reject(books, mismatch["id"])
    assert correct(books, mismatch["id"], passport=program)["status"] == "corrected"


def test_reversal_is_one_act_and_happens_once(books: Session) -> None:
    made = paid(books, kind="payment")
    record(books, made["order_no"], amount=900)
    mismatch = the_one(books)
    first = correct(books, mismatch["id"])["corrections"][0]
    reversal = reverse(books, mismatch["id"])
    assert (reversal["status"], reversal["reversal_of"]) == ("applied", first["id"])
    for again in (first["id"], reversal["id"]):
        with pytest.raises(CorrectionNotApplied):
            corrections.reverse_correction(books, ALICE, correction_id=again, reason=WHY, terms=TERMS)
    after = get_mismatch(books, ALICE, mismatch_id=mismatch["id"])
    assert [(c["id"], c["status"]) for c in after["corrections"]] == [
        (reversal["id"], "applied"), (first["id"], "reversed"),
    ]  # fmt: skip
    assert [entry["entry_id"] is not None for c in after["corrections"] for entry in c["entries"]] == [True, True]
    assert correct(books, mismatch["id"])["status"] == "corrected"
    assert order(books, made["order_no"]).amount == 900
    ends_well(books)


def test_reversal_over_the_threshold_waits_and_the_correction_stands_until_then(books: Session) -> None:
    made = paid(books, kind="payment")
    record(books, made["order_no"], amount=900)
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    reversal = reverse(books, mismatch["id"], terms=ALWAYS_WAITS)
    assert reversal["status"] == "proposed"
    assert get_mismatch(books, ALICE, mismatch_id=mismatch["id"])["status"] == "corrected"
    assert order(books, made["order_no"]).amount == 900
    with pytest.raises(ProposalPending):
        reverse(books, mismatch["id"])
    with pytest.raises(FourEyes):
        approve(books, mismatch["id"], passport=ALICE)
    assert reject(books, mismatch["id"])["status"] == "corrected"
    reverse(books, mismatch["id"], terms=ALWAYS_WAITS)
    assert approve(books, mismatch["id"])["status"] == "open"
    assert order(books, made["order_no"]).amount == 1000
    assert_books_are_right(books)


def test_reversal_of_what_is_spent_is_refused(books: Session) -> None:
    made = paid(books, user_id="poor")
    record(books, made["order_no"], amount=2000)
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    fund(books, "-15.00", type=323, user_id="poor")
    savepoint = books.begin_nested()
    with pytest.raises(InsufficientBalance):
        reverse(books, mismatch["id"])
    savepoint.rollback()
    assert get_mismatch(books, ALICE, mismatch_id=mismatch["id"])["status"] == "corrected"


def test_corrected_mismatch_is_not_corrected_again(books: Session) -> None:
    record(books, paid(books)["order_no"], amount=900)
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    with pytest.raises(CorrectionStands):
        correct(books, mismatch["id"])


def test_sides_that_agree_by_now_leave_nothing_to_correct(books: Session) -> None:
    record(books, paid(books)["order_no"], amount=900)
    mismatch = the_one(books)
    books.execute(sa.text("update upstream_records set amount = 1000, upstream_ref = 'x'"))
    books.execute(sa.text("update orders set upstream_ref = 'x'"))
    for to in ("upstream", "local"):
        with pytest.raises(MismatchOutdated):
            correct(books, mismatch["id"], to)


@pytest.mark.parametrize("fields", [{"to": "sideways"}, {"reason": " "}])
def test_wrong_words_are_refused(books: Session, fields: dict[str, Any]) -> None:
    record(books, paid(books)["order_no"], amount=900)
    with pytest.raises(InvalidRequest):
        correct(books, the_one(books)["id"], **fields)


def test_foreign_merchants_corrections_do_not_exist(books: Session) -> None:
    record(books, paid(books)["order_no"], amount=900)
    mismatch = the_one(books)
    outsider, insider = (person("Eve", "administrator", frozenset({m})) for m in (BOREALIS, AURORA))
    for foreign in (correct, approve, reject):
        with pytest.raises(MismatchNotFound):
            foreign(books, mismatch["id"], passport=outsider)
    done = correct(books, mismatch["id"], passport=insider)["corrections"][0]
    with pytest.raises(CorrectionNotFound):
        corrections.reverse_correction(books, outsider, correction_id=done["id"], reason=WHY, terms=TERMS)
    wanted: dict[str, Any] = {
        "status": (),
        "to": None,
        "mismatch_id": None,
        "merchant_id": None,
        "limit": 10,
        "cursor": None,
    }
    assert list_corrections(books, outsider, **wanted)["items"] == []
    assert [c["id"] for c in list_corrections(books, insider, **wanted)["items"]] == [done["id"]]


def test_each_step_is_told(books: Session) -> None:
    record(books, paid(books)["order_no"], amount=900)
    mismatch = the_one(books)
    known = len(events(books))
    correct(books, mismatch["id"], terms=ALWAYS_WAITS)
    reject(books, mismatch["id"])
    correct(books, mismatch["id"], terms=ALWAYS_WAITS)
    approve(books, mismatch["id"])
    reverse(books, mismatch["id"])
    assert [e for e in events(books)[known:] if e != "BalancesChanged"] == [
        "CorrectionProposed", "CorrectionRejected", "CorrectionProposed", "CorrectionApproved", "CorrectionApplied",
        "CorrectionReversed",
    ]  # fmt: skip


def test_a_platforms_success_is_not_made_a_refund_by_our_own(books: Session) -> None:
    made = paid(books, kind="payment")
    refund(books, made["order_no"], "4.00")
    record(books, made["order_no"], amount=400)
    mismatch = the_one(books)
    with pytest.raises(NotCorrectable):
        correct(books, mismatch["id"])
    correct(books, mismatch["id"], "local")
    ends_well(books)


def test_a_refund_of_nothing_cannot_be_followed(books: Session) -> None:
    record(books, paid(books, kind="paid_reset")["order_no"], amount=0, status="refunded")
    with pytest.raises(NotCorrectable):
        correct(books, the_one(books)["id"])


def test_two_refunds_of_other_amounts_are_at_stake_by_their_difference(books: Session) -> None:
    made = paid(books, kind="payment")
    refund(books, made["order_no"])
    record(books, made["order_no"], status="refunded", amount=200_000)
    assert correct(books, the_one(books)["id"], "local")["status"] == "pending_approval"


def test_many_small_corrections_of_one_order_are_one_large_one(books: Session) -> None:
    made = paid(books, amount="3000.00")
    ref = record(books, made["order_no"], amount=240_000)
    mismatch = the_one(books)
    assert correct(books, mismatch["id"])["status"] == "corrected"
    says(books, ref, amount=180_000)
    reconcile_all(books)
    assert [m["id"] for m in found(books, "open")] == [mismatch["id"]]
    assert correct(books, mismatch["id"])["status"] == "pending_approval"
    assert order(books, made["order_no"]).amount == 240_000
    approve(books, mismatch["id"])
    assert order(books, made["order_no"]).amount == 180_000
    ends_well(books)


def test_correction_whose_mismatch_was_found_again_can_still_be_taken_back(books: Session) -> None:
    made = paid(books)
    ref = record(books, made["order_no"], amount=900)
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    says(books, ref, amount=800)
    reconcile_all(books)
    assert [m["id"] for m in found(books, "open")] == [mismatch["id"]]
    assert reverse(books, mismatch["id"], terms=ALWAYS_WAITS)["status"] == "proposed"
    with pytest.raises(ProposalPending):
        reverse(books, mismatch["id"])
    assert approve(books, mismatch["id"])["status"] == "open"
    assert order(books, made["order_no"]).amount == 1000
    correct(books, mismatch["id"])
    assert order(books, made["order_no"]).amount == 800
    ends_well(books)


def test_proposal_to_reverse_is_void_when_its_mismatch_is_found_again(books: Session) -> None:
    made = paid(books)
    ref = record(books, made["order_no"], amount=900)
    mismatch = the_one(books)
    correct(books, mismatch["id"])
    reverse(books, mismatch["id"], terms=ALWAYS_WAITS)
    says(books, ref, amount=800)
    reconcile_all(books)
    after = get_mismatch(books, ALICE, mismatch_id=mismatch["id"])
    assert (after["status"], [c["status"] for c in after["corrections"]]) == ("open", ["void", "applied"])
    assert correct(books, mismatch["id"], terms=ALWAYS_WAITS)["status"] == "pending_approval"


def test_record_that_does_not_speak_for_its_order_any_more_undoes_nothing(books: Session) -> None:
    made = paid(books)
    record(books, made["order_no"], status="failed")
    mismatch = the_one(books)
    record(books, made["order_no"])  # it was tried again
    for to in ("upstream", "local"):
        with pytest.raises(MismatchOutdated):
            correct(books, mismatch["id"], to)
    assert order(books, made["order_no"]).status == "settled"
    reconcile_all(books)
    ends_well(books)


def test_order_made_from_one_record_is_not_failed_by_another_of_its_number(books: Session) -> None:
    record(books, "theirs", status="failed")
    record(books, "theirs")
    reconcile_all(books)
    tried, taken = sorted(found(books, "open"), key=lambda m: m["difference"])
    correct(books, taken["id"], merchant_id=AURORA, kind="recharge")
    with pytest.raises(MismatchOutdated):
        correct(books, tried["id"])
    assert order(books, "theirs").status == "settled"
    reconcile_all(books)
    ends_well(books)


def test_record_set_aside_counts_again_when_the_platform_says_something_else(books: Session) -> None:
    made = paid(books, kind="payment")
    ref = record(books, made["order_no"], status="failed")
    mismatch = the_one(books)
    correct(books, mismatch["id"], "local")
    ends_well(books)
    says(books, ref, occurred_at=utc_now(), fee=1)  # nothing that was judged
    ends_well(books)
    says(books, ref, status="refunded")
    reconcile_all(books)
    assert [m["id"] for m in found(books, "open")] == [mismatch["id"]]
    with pytest.raises(ProposalOutdated):
        reverse(books, mismatch["id"])
    correct(books, mismatch["id"])
    assert (order(books, made["order_no"]).status, account(books)) == ("refunded", (50_000, 0))
    ends_well(books)


def test_of_two_records_of_one_instant_the_one_that_says_what_we_say_goes_first(books: Session) -> None:
    made, at = paid(books), utc_now()
    record(books, made["order_no"], amount=900, at=at)
    record(books, made["order_no"], amount=800, at=at)
    reconcile_all(books)
    amount = next(m for m in found(books, "open") if m["kind"] == "amount_mismatch")
    correct(books, amount["id"], "local")
    reconcile_all(books)
    [twice] = found(books, "open")
    assert (twice["kind"], twice["difference"]) == ("duplicate_upstream", "8.00")
    correct(books, twice["id"], "local")
    ends_well(books)


@pytest.mark.parametrize("order_no", ["theirs", None])
def test_order_made_for_the_wrong_merchant_is_taken_back_and_made_for_the_right_one(
    books: Session, order_no: str | None
) -> None:
    record(books, order_no)
    wrong = the_one(books)
    mine: dict[str, Any] = {"merchant_id": AURORA, "kind": "recharge"}
    theirs = mine | {"merchant_id": BOREALIS}
    correct(books, wrong["id"], **mine)
    reverse(books, wrong["id"])
    reconcile_all(books)
    [mismatch] = found(books, "open")
    waiting = correct(books, mismatch["id"], terms=ALWAYS_WAITS, **theirs)
    assert waiting["corrections"][0]["merchant_id"] == BOREALIS
    if mismatch["merchant_id"] == AURORA:
        only_mine = person("Mine", "administrator", frozenset({AURORA}))
        assert get_mismatch(books, only_mine, mismatch_id=mismatch["id"])["corrections"] == []
        with pytest.raises(MerchantNotFound):
            approve(books, mismatch["id"], passport=only_mine)
    approve(books, mismatch["id"])
    balances = "select merchant_id, balance from accounts where holder_type = 'merchant' and wallet = 'balance'"
    assert dict(books.execute(sa.text(balances)).all()) == {AURORA: 0, BOREALIS: 1000}
    ends_well(books)
    reverse(books, mismatch["id"])
    correct(books, mismatch["id"], **theirs)
    assert dict(books.execute(sa.text(balances)).all()) == {AURORA: 0, BOREALIS: 1000}
    ends_well(books)
