"""Callbacks on a real database: signed, once, compared with the order, confirmed where the platform can be asked."""

import gzip
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.queries.upstream_answers import list_upstream_answers
from services.ledger.signatures import sign
from services.ledger.usecases import callbacks, channels
from services.ledger.verification import prove
from shared.contracts.channels import CALLBACK_BYTES_MAX, CallbackRefused, CallbackTooLarge, ChannelUnreachable
from shared.contracts.ledger import OrderNotFound
from shared.errors import InvalidRequest, ServiceError
from shared.rpc.wire import current_call
from tests.conftest import AURORA, BOREALIS, person
from tests.services.ledger.channels import CIPHER, SECRET, new_secret, register
from tests.services.ledger.conftest import THRESHOLD, Books
from tests.services.ledger.orders import ALICE, add_merchants, create, fail, fund, refund, settle
from tests.services.ledger.platform import QueryApi, payment, query_api, signed


class CallbackBooks(Books):
    """What a callback needs of a process, and what a test asks of the database."""

    allowed: frozenset[str] = frozenset()

    def threshold(self) -> Any:
        return THRESHOLD

    def order(self, **fields: Any) -> str:
        """Make an order of 10.00 CNY; without a kind a recharge."""
        order: Any = self.run(lambda session: create(session, **{"kind": "recharge"} | fields))
        return str(order["order_no"])

    def receive(self, content: Any, *, code: str = "alipay", headers: Any = None, **signing: Any) -> Any:
        signature, body = signed(content, **signing)
        return callbacks.receive_callback(
            self, CIPHER, code=code, headers=signature | (headers or {}), body=body, allowed=self.allowed
        )

    def rows(self, sql: str) -> list[Any]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(sql))]

    def status(self, order_no: str) -> str:
        return str(self.rows(f"select status from orders where order_no = '{order_no}'")[0][0])

    def records(self) -> list[Any]:
        return self.rows("select upstream_ref, order_no, amount, status, source from upstream_records order by id")

    def told(self) -> list[tuple[str, str]]:
        return self.rows(
            "select envelope::json -> 'payload' ->> 'outcome', envelope::json -> 'actor' ->> 'id' from outbox"
            " where routing_key = 'ledger.UpstreamReported' order by id"
        )


@pytest.fixture
def books(engine: sa.Engine) -> CallbackBooks:
    """An empty ledger that knows two merchants, and a channel that sends callbacks."""
    tables = "orders, entries, accounts, posting_deltas, channels, upstream_records, outbox, merchant_copies"
    with engine.begin() as connection:
        connection.execute(sa.text(f"truncate {tables} cascade"))
    mine = CallbackBooks(engine)
    mine.run(add_merchants)
    mine.run(lambda session: register(session, config={"callback_secrets": [SECRET]}))
    return mine


@pytest.fixture
def platform(books: CallbackBooks) -> Iterator[QueryApi]:
    """A platform that can be asked, and its channel `askable`."""
    with query_api() as api:
        books.allowed = frozenset({api.place})
        books.run(lambda session: register(session, "askable", kind="http", config=api.config(), allowed=books.allowed))
        yield api


def update(books: CallbackBooks, **fields: Any) -> None:
    books.run(
        lambda session: channels.update_channel(
            session, ALICE, CIPHER, allowed=frozenset(), code="alipay", reason="Test.", **fields
        )
    )


def test_callback_settles_its_order_and_keeps_the_record(books: CallbackBooks) -> None:
    number = books.order()
    answer = books.receive(payment(number, fee="0.06", anything="else"))
    assert answer == {"outcome": "settled", "order_no": number, "upstream_ref": f"up-{number}"}
    assert books.rows("select status, upstream_ref from orders") == [("settled", f"up-{number}")]
    assert books.rows("select type, amount, actor_id, actor_name from entries") == [
        (321, 1000, "channel:alipay", "Alipay")
    ]
    assert books.records() == [(f"up-{number}", number, 1000, "success", "callback")]
    assert books.rows("select fee from upstream_records") == [(6,)]
    assert books.told() == [("settled", "channel:alipay")]


def test_delivered_twenty_times_at_once_it_credits_once(books: CallbackBooks) -> None:
    numbers = [books.order() for _ in range(5)]
    one_message = [(number, f"msg_same_{number}") for number in numbers for _ in range(10)]
    own_messages = [(number, None) for number in numbers for _ in range(10)]
    contexts = [(copy_context(), item) for item in one_message + own_messages]

    def deliver(pair: Any) -> str:
        context, (number, webhook_id) = pair
        return str(context.run(lambda: books.receive(payment(number), webhook_id=webhook_id)["outcome"]))

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(deliver, contexts))
    assert set(outcomes) <= {"settled", "already"}
    assert books.rows("select type, count(*), sum(amount) from entries group by 1") == [(321, 5, 5000)]
    assert len(books.records()) == 5
    assert books.run(lambda session: prove(session, mode="full"))["faults"] == []


def test_message_delivered_again_gets_the_same_answer_and_does_nothing(books: CallbackBooks) -> None:
    number = books.order()
    first = books.receive(payment(number), webhook_id="msg_a")
    again = [books.receive(payment(number), webhook_id="msg_a") for _ in range(3)]
    assert again == [first] * 3
    assert first["outcome"] == "settled"
    assert len(books.told()) == 1
    assert books.receive(payment(number), webhook_id="msg_b")["outcome"] == "already"
    assert len(books.told()) == 1


def test_other_body_under_a_known_id_is_another_message(books: CallbackBooks) -> None:
    first, second = books.order(), books.order()
    assert books.receive(payment(first), webhook_id="msg_a")["outcome"] == "settled"
    answer = books.receive(payment(second), webhook_id="msg_a")
    assert answer == {"outcome": "settled", "order_no": second, "upstream_ref": f"up-{second}"}
    assert books.receive(payment(second), webhook_id="msg_a")["outcome"] == "already"
    assert books.receive(payment(first), webhook_id="msg_a")["outcome"] == "settled"
    assert books.rows("select count(*) from entries") == [(2,)]


@pytest.mark.parametrize(
    ("signing", "headers"),
    [
        ({"secret": new_secret()}, {}),
        ({"age": timedelta(minutes=6)}, {}),
        ({"age": timedelta(minutes=-6)}, {}),
        ({}, {"webhook-signature": ""}),
        ({}, {"webhook-signature": "v1"}),
        ({}, {"webhook-signature": "v1,%%%"}),
        ({}, {"webhook-signature": "v2,AAAA"}),
        ({}, {"webhook-id": "msg_other"}),
        ({}, {"webhook-id": ""}),
        ({}, {"webhook-timestamp": "now"}),
        ({}, {"webhook-timestamp": "1e9"}),
        ({"code": "nobody"}, {}),
    ],
)
def test_bad_signature_and_unknown_channel_look_alike(
    books: CallbackBooks, signing: dict[str, Any], headers: dict[str, str]
) -> None:
    number = books.order()
    with pytest.raises(CallbackRefused) as refused:
        books.receive(payment(number), headers=headers, **signing)
    assert (refused.value.detail, refused.value.extra) == (CallbackRefused.title, {})
    assert (books.status(number), books.records(), books.told()) == ("pending", [], [])


def test_body_that_was_changed_is_refused(books: CallbackBooks) -> None:
    headers, body = signed(payment(books.order()))
    with pytest.raises(CallbackRefused):
        callbacks.receive_callback(
            books, CIPHER, code="alipay", headers=headers, body=body.replace("10.00", "10.000"), allowed=frozenset()
        )


@pytest.mark.parametrize("change", [{"status": "disabled"}, {"config": {"callback_secrets": None}}])
def test_disabled_channel_and_one_without_secrets_take_none(books: CallbackBooks, change: dict[str, Any]) -> None:
    number = books.order()
    update(books, **change)
    with pytest.raises(CallbackRefused):
        books.receive(payment(number))


def test_secret_is_changed_without_a_gap(books: CallbackBooks) -> None:
    other = new_secret()
    update(books, config={"callback_secrets": [other, SECRET]})
    for secret in (other, SECRET):
        assert books.receive(payment(books.order()), secret=secret)["outcome"] == "settled"


@pytest.mark.parametrize(
    "content",
    [
        "not json", "[]", "null",
        payment("x", amount=10), payment("x", amount="10.001"), payment("x", amount="-1.00"),
        payment("x", currency="XXQ"), payment("x", status="paid"), payment("x", status=None),
        payment("x", upstream_ref=None), payment("x", upstream_ref="a b"), payment("a/b"),
        payment("x", time="yesterday"), payment("x", fee=1), payment("x", time="9999-12-31T23:59:59Z"),
        payment("x", time="0001-01-01T00:00:00+23:59"), payment("x", amount="1e3"), payment("x", amount="NaN"),
        payment("x", amount="9" * 30), payment("x", amount=True),
        '{"order_no":"x","upstream_ref":"u","status":"success","amount":NaN,"currency":"CNY"}',
        "[" * 60_000, "\ufeff{}", '"\\ud800"',
    ],
)  # fmt: skip
def test_signed_body_that_cannot_be_read_is_invalid(books: CallbackBooks, content: Any) -> None:
    with pytest.raises(InvalidRequest):
        books.receive(content)
    assert books.records() == []


def test_body_that_is_too_large_is_refused_unread(books: CallbackBooks) -> None:
    with pytest.raises(CallbackTooLarge):
        books.receive(payment("x", note="x" * CALLBACK_BYTES_MAX))


def test_platforms_words_are_understood(books: CallbackBooks) -> None:
    update(books, config={"statuses": {"TRADE_SUCCESS": "success"}})
    assert books.receive(payment(books.order(), status="TRADE_SUCCESS"))["outcome"] == "settled"


@pytest.mark.parametrize("fields", [{"amount": "9.99"}, {"amount": "1000.00"}, {"currency": "USD"}])
def test_other_amount_or_currency_moves_no_money_and_keeps_the_record(
    books: CallbackBooks, fields: dict[str, str]
) -> None:
    number = books.order()
    assert books.receive(payment(number, **fields))["outcome"] == "mismatched"
    assert (books.status(number), books.rows("select * from entries")) == ("pending", [])
    assert len(books.records()) == 1
    assert books.told() == [("mismatched", "channel:alipay")]
    differing = books.rows(
        "select envelope::json -> 'payload' -> 'differing' ->> 0 from outbox order by id desc limit 1"
    )
    assert differing == [(next(iter(fields)),)]


def test_order_of_another_channel_is_no_order_of_this_one(books: CallbackBooks) -> None:
    number = books.order(channel="wechat")
    for order_no in (number, "nobody"):
        assert books.receive(payment(order_no))["outcome"] == "unknown_order"
    assert books.status(number) == "pending"
    assert len(books.records()) == 2


def test_failed_payment_fails_its_order_and_frees_what_it_held(books: CallbackBooks) -> None:
    books.run(lambda session: fund(session, "10.00"))
    number = books.order(kind="purchase")
    assert books.receive(payment(number, status="failed"))["outcome"] == "failed"
    assert books.rows("select balance, held from accounts") == [(1000, 0)]
    assert books.receive(payment(number, status="failed"))["outcome"] == "already"
    assert books.receive(payment(number))["outcome"] == "contradicted"
    assert books.status(number) == "failed"


def test_what_contradicts_a_settled_order_is_kept_and_told_and_changes_nothing(books: CallbackBooks) -> None:
    number = books.order()
    books.receive(payment(number))
    cases = [
        ({"status": "failed"}, "contradicted"),
        ({"upstream_ref": "second"}, "contradicted"),
        ({"upstream_ref": "first-try", "status": "failed"}, "noted"),
        ({"status": "pending"}, "noted"),
        ({"status": "refunded"}, "noted"),
    ]
    for fields, outcome in cases:
        assert books.receive(payment(number, **fields))["outcome"] == outcome
    assert books.status(number) == "settled"
    assert books.rows("select count(*) from entries") == [(1,)]


def test_what_the_account_does_not_cover_is_told_and_the_order_waits(books: CallbackBooks) -> None:
    number = books.order(kind="payment")
    assert books.receive(payment(number))["outcome"] == "not_covered"
    assert (books.status(number), len(books.records())) == ("pending", 1)


def test_late_word_does_not_go_over_a_newer_one(books: CallbackBooks) -> None:
    number = books.order()
    books.receive(payment(number, fee="0.06"))
    books.receive(payment(number, status="pending", time="2026-11-24T07:59:00Z"))
    books.receive(payment(number, status="pending"))
    assert books.rows("select status, fee from upstream_records") == [("success", 6)]
    books.receive(payment(number, status="refunded", time="2026-11-24T09:00:00Z"))
    assert books.rows("select status, fee from upstream_records") == [("refunded", 6)]


def test_success_that_comes_after_its_refund_credits_nothing(books: CallbackBooks) -> None:
    number = books.order()
    refunded = payment(number, status="refunded", time="2026-11-24T09:00:00Z")
    assert books.receive(refunded)["outcome"] == "contradicted"
    assert books.receive(payment(number))["outcome"] == "noted"
    assert (books.status(number), books.rows("select * from entries")) == ("pending", [])
    assert books.rows("select status from upstream_records") == [("refunded",)]


def test_payment_that_was_not_covered_settles_when_it_is_told_again(books: CallbackBooks) -> None:
    number = books.order(kind="payment")
    assert books.receive(payment(number))["outcome"] == "not_covered"
    books.run(lambda session: fund(session, "10.00"))
    assert books.receive(payment(number))["outcome"] == "settled"


def test_one_payment_settles_one_order_however_many_it_is_said_of(books: CallbackBooks) -> None:
    first, second = books.order(), books.order()
    assert books.receive(payment(first, upstream_ref="one"))["outcome"] == "settled"
    for minute in range(3):
        said = payment(second, upstream_ref="one", time=f"2026-11-24T09:0{minute}:00Z")
        assert books.receive(said)["outcome"] == "contradicted"
    assert (books.status(first), books.status(second)) == ("settled", "pending")
    assert books.records() == [("one", first, 1000, "success", "callback")]


def test_one_payment_said_of_many_orders_at_once_settles_one(books: CallbackBooks) -> None:
    numbers = [books.order() for _ in range(12)]
    contexts = [copy_context() for _ in numbers]

    def deliver(pair: Any) -> str:
        context, number = pair
        return str(context.run(lambda: books.receive(payment(number, upstream_ref="one"))["outcome"]))

    with ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(deliver, zip(contexts, numbers, strict=True)))
    assert sorted(outcomes) == ["contradicted"] * 11 + ["settled"]
    assert books.rows("select count(*), sum(amount) from entries") == [(1, 1000)]


def test_payment_whose_order_was_named_wrongly_settles_the_right_one(books: CallbackBooks) -> None:
    number = books.order()
    assert books.receive(payment("nobody", upstream_ref="one"))["outcome"] == "unknown_order"
    assert books.receive(payment(number, upstream_ref="one"))["outcome"] == "settled"


def test_payment_that_a_correction_voided_settles_nothing(books: CallbackBooks) -> None:
    number = books.order(kind="payment")
    assert books.receive(payment(number))["outcome"] == "not_covered"
    with books.engine.begin() as connection:
        connection.execute(sa.text("update upstream_records set voided_by = 'cor_1'"))
    books.run(lambda session: fund(session, "10.00"))
    assert books.receive(payment(number))["outcome"] == "contradicted"
    assert books.status(number) == "pending"


def test_platform_that_can_be_asked_is_asked_before_money_is_credited(books: CallbackBooks, platform: QueryApi) -> None:
    number = books.order(channel="askable")
    platform.payments = [payment(number, fee="0.05")]
    assert books.receive(payment(number), code="askable")["outcome"] == "settled"
    assert platform.asked == [number]
    assert books.records() == [(f"up-{number}", number, 1000, "success", "query")]
    [(order_no, status_code, body, fault)] = books.rows(
        "select order_no, status_code, convert_from(body, 'utf8'), fault from upstream_answers"
    )
    assert (order_no, status_code, fault) == (number, 200, None)
    assert '"fee":"0.05"' in body
    books.receive(payment(number), code="askable")
    assert platform.asked == [number]


def test_raw_answers_are_read_by_who_sees_the_order(books: CallbackBooks, platform: QueryApi) -> None:
    number = books.order(channel="askable")
    platform.payments = [payment(number, status="pending")]
    for _ in range(3):
        books.receive(payment(number), code="askable")

    def answers(name: str, merchant_id: str, **page: Any) -> Any:
        someone = person(name, "operator", frozenset({merchant_id}))
        page = {"limit": 2, "cursor": None} | page
        return books.run(lambda session: list_upstream_answers(session, someone, order_no=number, **page))

    first = answers("Bob", AURORA)
    rest = answers("Bob", AURORA, cursor=first["next_cursor"])
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    assert first["items"][0]["body"].startswith('{"payments":[')
    assert (first["items"][0]["asked_for"], first["items"][0]["fault"]) == ("callback", None)
    with pytest.raises(OrderNotFound):
        answers("Charlie", BOREALIS)


def test_crowd_of_callbacks_asks_once(books: CallbackBooks, platform: QueryApi) -> None:
    number = books.order(channel="askable")
    platform.payments = [payment(number)]
    contexts = [copy_context() for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        work = [pool.submit(c.run, lambda: books.receive(payment(number), code="askable")) for c in contexts]
        outcomes = [done.result()["outcome"] for done in work]
    assert sorted(outcomes) == ["already"] * 19 + ["settled"]
    assert platform.asked == [number]
    assert callbacks._turns._locks == {}


@pytest.mark.parametrize(
    ("known", "outcome", "status"),
    [
        ([], "not_confirmed", "pending"),
        ([{"status": "pending"}], "not_confirmed", "pending"),
        ([{"status": "failed"}], "failed", "failed"),
        ([{"amount": "9.00"}], "mismatched", "pending"),
        ([{"upstream_ref": "another"}], "not_confirmed", "pending"),
        ([{"status": "failed"}, {"upstream_ref": "second", "status": "pending"}], "not_confirmed", "pending"),
    ],
)
def test_what_the_platform_says_when_asked_counts(
    books: CallbackBooks, platform: QueryApi, known: list[dict[str, str]], outcome: str, status: str
) -> None:
    number = books.order(channel="askable")
    platform.payments = [payment(number, **fields) for fields in known]
    assert books.receive(payment(number), code="askable")["outcome"] == outcome
    assert (books.status(number), books.rows("select * from entries")) == (status, [])


def test_forged_callback_leaves_no_record_where_the_platform_denies(books: CallbackBooks, platform: QueryApi) -> None:
    number = books.order(channel="askable")
    books.receive(payment(number), code="askable")
    assert books.records() == []
    assert [outcome for outcome, _ in books.told()] == ["not_confirmed"]


def answered(
    headers: dict[str, str], body: bytes, more: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Answer this in place of what was to be answered, signed as it must be."""
    signature = sign(SECRET, message_id=headers["webhook-id"], body=body, at=datetime.now(UTC))
    return 200, signature | (more or {}), body


@pytest.mark.parametrize("forged", [{"status": "refunded"}, {"order_no": "another"}, {"status": "pending"}])
def test_forged_callback_does_not_keep_a_confirmed_payment_from_its_order(
    books: CallbackBooks, platform: QueryApi, forged: dict[str, str]
) -> None:
    number = books.order(channel="askable")
    platform.payments = [payment(number)]
    soon = (datetime.now(UTC) + timedelta(hours=23)).isoformat()
    books.receive(payment(number, time=soon) | forged, code="askable")
    assert books.receive(payment(number), code="askable")["outcome"] == "settled"
    [(upstream_ref, order_no, *_)] = books.records()
    assert (upstream_ref, order_no) == (f"up-{number}", number)


def other_question(headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    return 200, signed(body.decode(), webhook_id="qry_other")[0], body


@pytest.mark.parametrize(
    "spoil",
    [
        lambda headers, body: (500, headers, body),
        lambda headers, body: (302, {**headers, "Location": "http://169.254.169.254/"}, body),
        lambda headers, body: (200, {}, body),
        lambda headers, body: (200, headers, body.replace(b"pending", b"success")),
        lambda headers, body: answered(headers, b"[]"),
        lambda headers, body: answered(headers, b'{"payments": {}}'),
        lambda headers, body: answered(headers, b'{"payments": null}'),
        lambda headers, body: answered(headers, b'{"payments": [[]]}'),
        lambda headers, body: answered(headers, body.replace(b'"10.00"', b"10.00")),
        lambda headers, body: answered(headers, body.replace(b'"10.00"', b"NaN")),
        lambda headers, body: answered(headers, body.replace(b"2026", b"9026")),
        lambda headers, body: answered(headers, body.replace(b'"order_no":"', b'"order_no":"x')),
        lambda headers, body: answered(headers, b'{"payments": [' + b",".join([body[13:-2]] * 101) + b"]}"),
        lambda headers, body: answered(headers, gzip.compress(body), {"Content-Encoding": "gzip"}),
        lambda headers, body: answered(headers, body + b" " * 300_000),
        other_question,
    ],
    ids=[
        "error",
        "redirect",
        "not signed",
        "changed",
        "not an answer",
        "no list",
        "null",
        "no payment",
        "float",
        "nan",
        "time to come",
        "of another order",
        "too many",
        "packed",
        "too large",
        "to another question",
    ],
)
def test_platform_that_does_not_answer_properly_is_to_deliver_again(
    books: CallbackBooks, platform: QueryApi, spoil: Any
) -> None:
    number = books.order(channel="askable")
    platform.payments = [payment(number, status="pending")]
    platform.spoil = spoil
    with pytest.raises(ChannelUnreachable) as refused:
        books.receive(payment(number), code="askable", webhook_id="msg_again")
    assert refused.value.extra == {"retry_after_seconds": 30}
    assert (books.status(number), books.told()) == ("pending", [])
    assert [fault for (fault,) in books.rows("select fault from upstream_answers")] != [None]
    platform.spoil, platform.payments = None, [payment(number)]
    assert books.receive(payment(number), code="askable", webhook_id="msg_again")["outcome"] == "settled"


def test_secret_that_a_platform_says_back_is_not_kept(books: CallbackBooks, platform: QueryApi) -> None:
    number = books.order(channel="askable")
    platform.spoil = lambda headers, body: (401, {}, f'{{"error":"bad key {SECRET}"}}'.encode())
    with pytest.raises(ChannelUnreachable):
        books.receive(payment(number), code="askable")
    assert books.rows("select convert_from(body, 'utf8') from upstream_answers") == [('{"error":"bad key ***"}',)]


def test_platform_is_not_asked_where_nobody_would_hear_of_it(books: CallbackBooks, platform: QueryApi) -> None:
    number = books.order(channel="askable")
    platform.payments = [payment(number)]
    token = current_call.set(replace(current_call.get(), deadline=time.time() + 7))
    try:
        with pytest.raises(ChannelUnreachable):
            books.receive(payment(number), code="askable")
    finally:
        current_call.reset(token)
    assert platform.asked == []


def test_slow_platform_keeps_only_some_callbacks_waiting(
    books: CallbackBooks, platform: QueryApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "ASKING_WAIT_SECONDS_MAX", 0.1)
    monkeypatch.setattr(callbacks, "_asking", BoundedSemaphore(2))
    numbers = [books.order(channel="askable") for _ in range(6)]
    platform.payments = [payment(number) for number in numbers]

    def slow(headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        time.sleep(2)
        return 200, headers, body

    def deliver(pair: Any) -> str:
        context, number = pair
        try:
            return str(context.run(lambda: books.receive(payment(number), code="askable")["outcome"]))
        except ChannelUnreachable:
            return "again"

    platform.spoil = slow
    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(deliver, [(copy_context(), number) for number in numbers]))
    assert sorted(outcomes) == ["again"] * 4 + ["settled"] * 2
    assert len(platform.asked) == 2


def test_platform_that_may_not_be_called_is_not(books: CallbackBooks, platform: QueryApi) -> None:
    number = books.order(channel="askable")
    platform.payments = [payment(number)]
    books.allowed = frozenset()
    with pytest.raises(ChannelUnreachable):
        books.receive(payment(number), code="askable")
    assert platform.asked == []


def test_refunds_after_a_callback_are_counted_as_always(books: CallbackBooks) -> None:
    books.run(lambda session: fund(session, "10.00"))
    number = books.order(kind="purchase")
    books.receive(payment(number))

    def give_back(session: Session) -> None:
        refund(session, number)
        refund(session, number)

    books.run(give_back)
    assert books.receive(payment(number))["outcome"] == "already"
    assert books.rows("select type, count(*) from entries where order_no <> 'P1' group by 1 order by 1")[-1] == (333, 1)


def test_order_that_was_settled_by_hand_is_as_it_was(books: CallbackBooks) -> None:
    number, failed = books.order(), books.order()
    books.run(lambda session: settle(session, number))
    books.run(lambda session: fail(session, failed))
    assert books.receive(payment(number))["outcome"] == "already"
    assert books.receive(payment(failed))["outcome"] == "contradicted"


def test_refusal_within_leaves_nothing_behind(books: CallbackBooks, monkeypatch: pytest.MonkeyPatch) -> None:
    number = books.order()

    def stumble(*_: Any, **__: Any) -> Any:
        raise ServiceError("stumbled")

    monkeypatch.setattr(callbacks, "_note", stumble)
    with pytest.raises(ServiceError):
        books.receive(payment(number), webhook_id="msg_c")
    monkeypatch.undo()
    assert (books.status(number), books.records()) == ("pending", [])
    assert books.receive(payment(number), webhook_id="msg_c")["outcome"] == "settled"


def test_crowd_of_one_message_that_is_denied_asks_and_tells_once(books: CallbackBooks, platform: QueryApi) -> None:
    number = books.order(channel="askable")
    contexts = [copy_context() for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        work = [
            pool.submit(c.run, lambda: books.receive(payment(number), code="askable", webhook_id="msg_x"))
            for c in contexts
        ]
        assert {done.result()["outcome"] for done in work} == {"not_confirmed"}
    assert (platform.asked, len(books.told())) == ([number], 1)
