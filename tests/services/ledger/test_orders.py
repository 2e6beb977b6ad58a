"""Orders on a real database: what they hold, what they post, what they refuse, what can be read of them."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from services.ledger.posting import Posting
from services.ledger.queries import orders as order_queries
from services.ledger.usecases import postings
from services.ledger.verification import prove
from shared.contracts.ledger import (
    InsufficientBalance,
    OrderNotFound,
    OrderNotPending,
    OrderNotRefundable,
    OrderNotSettled,
    OrderNumberTaken,
    OrderPostedBefore,
    OrderSettledOtherwise,
    RefundedThroughOrder,
    RefundTooLarge,
    SettledThroughOrder,
)
from shared.contracts.users import MerchantMissing, MerchantNotFound
from shared.errors import ServiceError
from shared.paging import InvalidCursor
from shared.passport import Passport
from tests.conftest import AURORA, BOREALIS
from tests.services.ledger.conftest import batch, change, post_all, result_of, single, view_in
from tests.services.ledger.orders import ALICE, account, add_merchants, create, events, fail, fund, refund, settle


@pytest.fixture
def session(session: Session) -> Session:
    """A session on a ledger that knows two merchants."""
    add_merchants(session)
    return session


def entries_of(session: Session, order_no: str) -> list[tuple[int, int]]:
    query = sa.text("select type, amount from entries where order_no = :n order by created_at")
    return [(row.type, row.amount) for row in session.execute(query, {"n": order_no})]


def listed(session: Session, passport: Passport = ALICE, limit: int = 50, **filters: Any) -> Any:
    own = {name: filters.pop(name, None) for name in ("kind", "status", "channel", "cursor")}
    exact = dict.fromkeys(("merchant_id", "user_id", "currency", "min_amount", "max_amount"))
    from_time, to_time = filters.pop("from_time", postings.FIRST_TIME), filters.pop("to_time", None)
    wanted = postings.log_filter(
        zone_name="UTC", date_text=None, from_time=from_time, to_time=to_time, types=[], groups=[], **exact | filters
    )
    return order_queries.list_orders(session, passport, wanted, limit=limit, **own)


def numbers(page: Any) -> list[str]:
    return [item["order_no"] for item in page["items"]]


@pytest.mark.parametrize("kind", ["purchase", "renewal", "withdraw"])
def test_pending_order_holds_its_money_until_it_settles(session: Session, kind: str) -> None:
    fund(session, "25.00")
    order = create(session, kind=kind)
    assert (order["status"], order["fee"], order["settled_at"]) == ("pending", "0", None)
    assert account(session) == (2500, 1000)
    assert entries_of(session, order["order_no"]) == []
    assert settle(session, order["order_no"])["status"] == "settled"
    assert account(session) == (1500, 0)
    assert len(entries_of(session, order["order_no"])) == 1


@pytest.mark.parametrize(
    ("kind", "code", "sign"),
    [
        ("recharge", 321, 1), ("withdraw", 322, -1), ("payment", 323, -1), ("purchase", 331, -1), ("renewal", 332, -1),
        ("paid_reset", 233, -1),
    ],
)  # fmt: skip
def test_settling_posts_the_kinds_type_once(session: Session, kind: str, code: int, sign: int) -> None:
    fund(session, "10.00")
    order_no = create(session, kind=kind)["order_no"]
    first = settle(session, order_no, upstream_ref="up-1")
    assert first == settle(session, order_no, upstream_ref="up-1") == settle(session, order_no)
    assert (first["upstream_ref"], first["settled_at"] is not None) == ("up-1", True)
    assert entries_of(session, order_no) == [(code, sign * 1000)]
    assert account(session) == (1000 + sign * 1000, 0)
    assert events(session).count("OrderSettled") == 1
    assert prove(session, mode="full")["faults"] == []


def test_recharge_opens_the_account(session: Session) -> None:
    order_no = create(session, kind="recharge", user_id="fresh")["order_no"]
    settle(session, order_no)
    assert account(session, "fresh") == (1000, 0)


def test_order_without_a_user_is_the_merchants_own(session: Session) -> None:
    order = create(session, kind="recharge", user_id=None)
    settle(session, order["order_no"])
    assert order["user_id"] is None
    assert session.execute(sa.text("select holder_type, holder_id, balance from accounts")).one() == (
        "merchant", AURORA, 1000,
    )  # fmt: skip


def test_order_without_a_number_gets_one(session: Session) -> None:
    first, second = (create(session, order_no=None)["order_no"] for _ in range(2))
    assert first != second


def test_failing_frees_what_was_held_once(session: Session) -> None:
    fund(session, "15.00")
    order_no = create(session, kind="purchase")["order_no"]
    other = create(session, kind="purchase", amount="5.00")["order_no"]
    assert account(session) == (1500, 1500)
    first = fail(session, order_no, reason="No stock.")
    assert first == fail(session, order_no)
    assert (first["status"], account(session)) == ("failed", (1500, 500))
    with pytest.raises(OrderNotPending):
        settle(session, order_no)
    assert settle(session, other)["status"] == "settled"
    assert events(session).count("OrderFailed") == 1


def test_held_money_is_not_spent_twice(session: Session) -> None:
    fund(session, "15.00")
    order_no = create(session, kind="purchase")["order_no"]
    with pytest.raises(InsufficientBalance) as caught:
        create(session, kind="withdraw", amount="5.01")
    assert caught.value.extra == {"available": "5.00", "currency": "CNY"}
    [outcome] = post_all(session, single(change(type=323, amount="-5.01")))
    assert isinstance(outcome, InsufficientBalance)
    payment = create(session, amount="5.01")["order_no"]
    with pytest.raises(InsufficientBalance):
        settle(session, payment)
    result_of(post_all(session, single(change(type=323, amount="-5.00")))[0])
    settle(session, order_no)
    assert account(session) == (0, 0)


def test_nobody_holds_what_an_account_that_is_not_there_lacks(session: Session) -> None:
    with pytest.raises(InsufficientBalance):
        create(session, kind="purchase", user_id="nobody")


def test_taken_number_is_refused_alike_whoever_has_it(session: Session, charlie: Passport) -> None:
    create(session, order_no="P-1", merchant_id=BOREALIS)
    create(session, order_no="P-2", merchant_id=AURORA)
    refusals = []
    for number in ("P-1", "P-2"):
        with pytest.raises(OrderNumberTaken) as caught:
            create(session, order_no=number, passport=charlie, merchant_id=BOREALIS)
        refusals.append(caught.value.to_wire())
    assert refusals[0] == refusals[1]
    with pytest.raises(OrderNumberTaken):
        create(session, order_no="P-1", kind="purchase", user_id="nobody")


def test_foreign_order_looks_like_one_that_does_not_exist(session: Session, bob: Passport) -> None:
    fund(session, "10.00", merchant_id=BOREALIS)
    create(session, order_no="theirs", merchant_id=BOREALIS, kind="purchase")
    for act in (settle, fail, refund):
        for number in ("theirs", "nowhere"):
            with pytest.raises(OrderNotFound):
                act(session, number, passport=bob)
    for number in ("theirs", "nowhere"):
        with pytest.raises(OrderNotFound):
            order_queries.get_order(session, bob, order_no=number)
    assert listed(session, bob)["items"] == listed(session, bob, merchant_id=BOREALIS)["items"] == []
    assert numbers(listed(session)) == ["theirs"]
    with pytest.raises(MerchantNotFound):
        create(session, passport=bob, merchant_id=BOREALIS)
    with pytest.raises(MerchantMissing):
        create(session, merchant_id="mer_nowhere")


def test_settling_with_another_reference_is_refused(session: Session) -> None:
    order_no = create(session, kind="recharge")["order_no"]
    settle(session, order_no, upstream_ref="up-1")
    with pytest.raises(OrderSettledOtherwise):
        settle(session, order_no, upstream_ref="up-2")
    assert len(entries_of(session, order_no)) == 1
    without = create(session, kind="recharge")["order_no"]
    settle(session, without)
    with pytest.raises(OrderSettledOtherwise, match="without a reference"):
        settle(session, without, upstream_ref="up-3")


def test_refusal_leaves_the_order_as_it_was(session: Session) -> None:
    order_no = create(session)["order_no"]
    savepoint = session.begin_nested()
    with pytest.raises(InsufficientBalance):
        settle(session, order_no)
    savepoint.rollback()
    fund(session, "10.00")
    assert settle(session, order_no)["status"] == "settled"


@pytest.mark.parametrize(("kind", "code"), [("payment", 324), ("paid_reset", 324), ("purchase", 333), ("renewal", 333)])
def test_refunds_are_never_more_than_was_paid(session: Session, kind: str, code: int) -> None:
    fund(session, "10.00")
    order_no = create(session, kind=kind)["order_no"]
    with pytest.raises(OrderNotSettled):
        refund(session, order_no)
    settle(session, order_no)
    first = refund(session, order_no, "4.00")
    assert (first["status"], first["refunded"]) == ("partially_refunded", "4.00")
    with pytest.raises(RefundTooLarge) as caught:
        refund(session, order_no, "6.01")
    assert caught.value.extra["refundable"] == "6.00"
    whole = refund(session, order_no)
    assert (whole["status"], whole["refunded"]) == ("refunded", "10.00")
    assert refund(session, order_no) == whole
    with pytest.raises(RefundTooLarge):
        refund(session, order_no, "0.01")
    assert entries_of(session, order_no)[1:] == [(code, 400), (code, 600)]
    assert account(session) == (1000, 0)
    assert events(session).count("OrderRefunded") == 2
    assert prove(session, mode="full")["faults"] == []


def test_recharge_and_withdrawal_have_no_refund(session: Session) -> None:
    fund(session, "10.00")
    for kind in ("recharge", "withdraw"):
        order_no = create(session, kind=kind)["order_no"]
        settle(session, order_no)
        with pytest.raises(OrderNotRefundable):
            refund(session, order_no)


@pytest.mark.parametrize("code", [324, 333])
def test_order_is_not_refunded_past_its_count(session: Session, code: int) -> None:
    fund(session, "10.00")
    order_no = create(session)["order_no"]
    settle(session, order_no)
    past = change(type=code, amount="10.00", order_no=order_no)
    assert isinstance(post_all(session, single(past))[0], RefundedThroughOrder)
    posting: Posting = batch([change(), past, change(type=code, order_no="of-no-order")], is_atomic=False)
    view = view_in(post_all(session, posting)[0])  # type: ignore[arg-type]
    assert [item.get("error", {}).get("code") for item in view["items"]] == [None, "refunded_through_order", None]
    elsewhere = change(type=code, amount="1.00", order_no=order_no, merchant_id=BOREALIS)
    assert not isinstance(post_all(session, single(elsewhere))[0], ServiceError)
    assert refund(session, order_no)["refunded"] == "10.00"


def test_refunds_from_before_the_order_was_known_count(session: Session) -> None:
    fund(session, "10.00")
    for code, amount in ((324, "3.00"), (333, "2.00")):
        result_of(post_all(session, single(change(type=code, amount=amount, order_no="early")))[0])
    create(session, order_no="early")
    settle(session, "early")
    with pytest.raises(RefundTooLarge):
        refund(session, "early", "5.01")
    assert refund(session, "early")["refunded"] == "10.00"
    assert entries_of(session, "early")[-1] == (324, 500)


SETTLING = [
    ("recharge", 321, "10.00"),
    ("withdraw", 322, "-10.00"),
    ("payment", 323, "-10.00"),
    ("purchase", 331, "-10.00"),
    ("renewal", 332, "-10.00"),
    ("paid_reset", 233, "-10.00"),
]


@pytest.mark.parametrize(("kind", "code", "amount"), SETTLING)
def test_order_is_not_settled_past_its_own_act(session: Session, kind: str, code: int, amount: str) -> None:
    fund(session, "100.00")
    order_no = create(session, kind=kind)["order_no"]
    past = change(type=code, amount=amount, order_no=order_no)
    assert isinstance(post_all(session, single(past))[0], SettledThroughOrder)
    settle(session, order_no)
    assert isinstance(post_all(session, single(past))[0], SettledThroughOrder)
    assert entries_of(session, order_no) == [(code, 1000 if kind == "recharge" else -1000)]
    # What the order does not do by itself may bear its number, and so may another merchant's own.
    result_of(post_all(session, single(change(type=326, amount="1.00", order_no=order_no, reason="sorry")))[0])
    fund(session, "100.00", merchant_id=BOREALIS)
    elsewhere = change(type=code, amount=amount, order_no=order_no, merchant_id=BOREALIS)
    result_of(post_all(session, single(elsewhere))[0])


@pytest.mark.parametrize(("kind", "code", "amount"), SETTLING)
def test_number_whose_money_a_change_has_moved_makes_no_order(
    session: Session, kind: str, code: int, amount: str
) -> None:
    fund(session, "100.00")
    fund(session, "100.00", merchant_id=BOREALIS)
    result_of(post_all(session, single(change(type=code, amount=amount, order_no="moved")))[0])
    with pytest.raises(OrderNumberTaken, match="has moved"), session.begin_nested():
        create(session, order_no="moved", kind=kind)
    assert account(session)[1] == 0
    assert create(session, order_no="moved", kind=kind, merchant_id=BOREALIS)["status"] == "pending"
    other = "payment" if kind == "recharge" else "recharge"
    result_of(post_all(session, single(change(type=code, amount=amount, order_no="moved-too")))[0])
    assert settle(session, create(session, order_no="moved-too", kind=other)["order_no"])["status"] == "settled"


def test_order_whose_money_was_moved_meanwhile_does_not_settle(session: Session) -> None:
    order_no = create(session, kind="recharge")["order_no"]
    session.execute(sa.text("update orders set order_no = 'elsewhere'"))  # as if the change had not seen it
    fund(session, "10.00", order_no=order_no)
    session.execute(sa.text("update orders set order_no = :n"), {"n": order_no})
    with pytest.raises(OrderPostedBefore), session.begin_nested():
        settle(session, order_no)
    assert account(session) == (1000, 0)
    assert fail(session, order_no)["status"] == "failed"


def test_detail_shows_entries_and_who_did_what(session: Session, bob: Passport) -> None:
    fund(session, "10.00")
    order_no = create(session, passport=bob)["order_no"]
    settle(session, order_no, upstream_ref="up-9")
    refund(session, order_no, "1.00", passport=bob)
    detail = order_queries.get_order(session, bob, order_no=order_no)
    assert [(e["type"], e["amount"], e["operator"]) for e in detail["entries"]] == [
        (324, "1.00", "Bob"), (323, "-10.00", "Alice"),
    ]  # fmt: skip
    acts = [(h["act"], h["status_before"], h["status_after"], h["amount"], h["actor_name"]) for h in detail["history"]]
    assert acts == [
        ("refund", "settled", "partially_refunded", "1.00", "Bob"),
        ("settle", "pending", "settled", "10.00", "Alice"),
        ("create", None, "pending", "10.00", "Bob"),
    ]
    assert (detail["history"][0]["reason"], detail["history"][1]["upstream_ref"]) == ("It was broken.", "up-9")


def test_list_is_filtered(session: Session) -> None:
    fund(session, "100.00")
    create(session, order_no="a", kind="purchase", amount="20.00", channel="wechat")
    create(session, order_no="b", user_id="user-2", amount="20.01")
    create(session, order_no="c", merchant_id=BOREALIS, currency="JPY", amount="20")
    create(session, order_no="d", kind="recharge", user_id=None, amount="19.99")
    settle(session, "d")
    assert numbers(listed(session)) == ["d", "c", "b", "a"]
    for filters, wanted in [
        ({"kind": "purchase"}, ["a"]),
        ({"status": "settled"}, ["d"]),
        ({"channel": "wechat"}, ["a"]),
        ({"merchant_id": BOREALIS}, ["c"]),
        ({"user_id": "user-2"}, ["b"]),
        ({"user_id": AURORA}, []),
        ({"currency": "JPY"}, ["c"]),
        ({"min_amount": "20.00"}, ["c", "b", "a"]),
        ({"max_amount": "20.00"}, ["d", "c", "a"]),
        ({"min_amount": "20.005", "currency": "CNY"}, ["b"]),
        ({"kind": "payment", "status": "pending", "min_amount": "1"}, ["c", "b"]),
        ({"to_time": "2020-01-01T00:00:00Z"}, []),
        ({"from_time": "2020-01-01T00:00:00Z"}, ["d", "c", "b", "a"]),
    ]:
        assert numbers(listed(session, **filters)) == wanted, filters


def test_pages_follow_one_another(session: Session) -> None:
    made = [create(session)["order_no"] for _ in range(5)]
    found, cursor = [], None
    while True:
        page = listed(session, limit=2, cursor=cursor)
        found += numbers(page)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == made[::-1]
    with pytest.raises(InvalidCursor):
        listed(session, cursor="nonsense")


@pytest.mark.parametrize(
    "tampering",
    [
        "update accounts set held = held + 1",
        "update accounts set held = 0",
        "alter table orders drop constraint ck_orders_held; update orders set held = held - 1",
        "update orders set status = 'failed', held = 0",
    ],
)
@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_proof_finds_money_that_is_held_for_no_order(session: Session, tampering: str, mode: Any) -> None:
    fund(session, "20.00")
    create(session, kind="purchase")
    assert prove(session, mode=mode)["faults"] == []
    session.execute(sa.text(tampering))
    faults = prove(session, mode=mode)["faults"]
    assert ("held", AURORA) in [(fault["kind"], fault["merchant_id"]) for fault in faults]


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("update orders set refunded = amount + 1, status = 'refunded', settled_at = now(), held = 0", "refunded"),
        ("update orders set status = 'settled', held = 0", "settled_at"),
        ("update orders set status = 'refunded', settled_at = now(), held = 0", "refund_status"),
        ("update orders set held = 0", "held"),
        ("update accounts set held = balance + 1", "accounts_held"),
        ("insert into order_history select * from order_history", "identity|generated|GENERATED"),
    ],
)
def test_tables_refuse_what_the_code_never_writes(session: Session, statement: str, constraint: str) -> None:
    fund(session, "20.00")
    create(session, kind="purchase")
    with pytest.raises(DBAPIError, match=constraint):
        session.execute(sa.text(statement))
