"""The payment platform answers, calls back and writes statements as a real one does, and misbehaves on demand."""

import queue
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import date
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
import requests

from services.ledger.adapters import ask
from services.ledger.adapters.answers import Answer, Channel
from services.ledger.domain.statement_camt import CamtStatement
from services.ledger.domain.statement_csv import CsvStatement
from services.ledger.domain.statement_mt940 import Mt940Statement
from services.ledger.domain.statements import Terms
from services.ledger.signatures import BadSignature, check_signature
from simulators.payment_platform import RunningPlatform, running_platform
from simulators.payment_platform.planting import KINDS, Plan, make_plan

DAY = "2026-11-24"


@pytest.fixture
def platform() -> Iterator[RunningPlatform]:
    with running_platform() as running:
        yield running


def asked(platform: RunningPlatform, order_no: str, account: str = "alipay") -> Answer:
    config = {"base_url": platform.base_url(account)}
    channel = Channel(account, account, "http", config, {"query_secret": platform.secret})
    return ask(channel, order_no=order_no, upstream_ref=None, allowed=frozenset({platform.place}))


class Listener:
    """Where callbacks arrive: answers what it is told, in order, the last for ever."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.answers: list[int] = [200]
        self.url = ""

    def all(self) -> list[tuple[dict[str, str], bytes]]:
        return [self.heard.get_nowait() for _ in range(self.heard.qsize())]


@pytest.fixture
def listener(platform: RunningPlatform) -> Iterator[Listener]:
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            listener.heard.put(({k.lower(): v for k, v in self.headers.items()}, body))
            status = listener.answers.pop(0) if len(listener.answers) > 1 else listener.answers[0]
            answer = b'{"outcome": "settled"}'
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        listener.url = f"http://127.0.0.1:{server.server_port}/callbacks"
        platform.send_callbacks_to("alipay", listener.url)
        yield listener
        server.shutdown()


def test_platform_answers_what_the_ledger_asks(platform: RunningPlatform) -> None:
    platform.make_payment("alipay", "P-1", "12.50", fee="0.08", time=f"{DAY}T08:00:00Z", upstream_ref="u-1")
    platform.make_payment("alipay", "P-1", "12.50", status="failed")
    platform.make_payment("wechat", "P-2", "1.00")
    answer = asked(platform, "P-1")
    assert (answer.fault, answer.status_code) == (None, 200)
    first = answer.payments[0]
    assert (first.upstream_ref, first.amount, first.fee, first.status) == ("u-1", 1250, 8, "success")
    assert [payment.status for payment in answer.payments] == ["success", "failed"]
    assert asked(platform, "P-2").payments == ()
    platform.change_payment("alipay", "u-1", status="refunded")
    assert asked(platform, "P-1").payments[0].status == "refunded"


def test_question_that_is_not_signed_is_refused(platform: RunningPlatform) -> None:
    assert requests.post(f"{platform.base_url('alipay')}/payments/query", json={}, timeout=5).status_code == 401


@pytest.mark.parametrize("kind", ["server_error", "drop", "redirect", "bad_signature"])
def test_fault_spoils_the_next_answer_and_then_ends(platform: RunningPlatform, kind: str) -> None:
    platform.make_payment("alipay", "P-1", "12.50")
    platform.order_fault(kind, "query", account="alipay")
    assert asked(platform, "P-1", "wechat").fault is None
    assert asked(platform, "P-1").fault is not None
    assert len(asked(platform, "P-1").payments) == 1


def test_wrong_amount_is_answered_on_demand(platform: RunningPlatform) -> None:
    platform.make_payment("alipay", "P-1", "12.50")
    platform.order_fault("wrong_amount", "query")
    assert asked(platform, "P-1").payments[0].amount == 91250


def test_callback_is_signed_and_says_the_payment(platform: RunningPlatform, listener: Listener) -> None:
    made = platform.make_payment("alipay", "P-1", "12.50")
    assert platform.deliver("alipay") == {"messages": 1, "statuses": {"200": 1}, "outcomes": {"settled": 1}}
    [(headers, body)] = listener.all()
    check_signature([platform.secret], headers, body)
    assert orjson.loads(body) == made


def test_callback_comes_again_until_it_is_taken(platform: RunningPlatform, listener: Listener) -> None:
    platform.make_payment("alipay", "P-1", "12.50")
    listener.answers = [503, 500, 200]
    assert platform.deliver("alipay")["statuses"] == {"503": 1, "500": 1, "200": 1}
    heard = listener.all()
    assert len({headers["webhook-id"] for headers, _ in heard}) == 1
    listener.answers = [401]
    assert platform.deliver("alipay")["outcomes"] == {"refused": 1}


def test_copies_are_one_message_or_messages_of_their_own(platform: RunningPlatform, listener: Listener) -> None:
    ref = platform.make_payment("alipay", "P-1", "12.50")["upstream_ref"]
    platform.make_payment("alipay", "P-2", "12.50")
    for is_same, ids in ((True, 1), (False, 10)):
        platform.deliver("alipay", upstream_refs=[ref], times=10, at_once=5, is_same_message=is_same)
        heard = listener.all()
        assert (len(heard), len({headers["webhook-id"] for headers, _ in heard})) == (10, ids)


def test_callbacks_misbehave_on_demand(platform: RunningPlatform, listener: Listener) -> None:
    platform.make_payment("alipay", "P-1", "12.50", time=f"{DAY}T08:00:00Z")
    for kind, count in (("duplicate", 20), ("out_of_order", 2), ("wrong_amount", 1), ("drop", 0)):
        platform.order_fault(kind, "callback")
        platform.deliver("alipay", at_once=8)
        heard = [orjson.loads(body) for _, body in listener.all()]
        assert len(heard) == count
        if kind == "out_of_order":
            assert [(said["status"], said["time"]) for said in heard] == [
                ("success", f"{DAY}T08:00:00Z"), ("pending", f"{DAY}T07:59:00Z"),
            ]  # fmt: skip
        if kind == "wrong_amount":
            assert heard[0]["amount"] == "912.50"
    platform.order_fault("bad_signature", "callback")
    platform.deliver("alipay")
    [(headers, body)] = listener.all()
    with pytest.raises(BadSignature):
        check_signature([platform.secret], headers, body)


def test_statement_has_the_day_of_its_zone(platform: RunningPlatform) -> None:
    platform.make_payment("alipay", "P-1", "12.50", time="2026-11-23T16:30:00Z", upstream_ref="u-1")
    platform.make_payment("alipay", "P-2", "1.00", time=f"{DAY}T15:59:59Z", upstream_ref="u-2", status="failed")
    platform.make_payment("alipay", "P-3", "1.00", time=f"{DAY}T16:00:00Z", upstream_ref="u-3")
    rows = platform.statement("alipay", DAY, zone="Asia/Shanghai").decode().splitlines()
    assert rows == [
        "upstream_ref,order_no,amount,fee,currency,status,time",
        "u-1,P-1,12.50,0,CNY,success,2026-11-23T16:30:00Z",
        f"u-2,P-2,1.00,0,CNY,failed,{DAY}T15:59:59Z",
    ]
    assert (
        ":61:2611241124C12,50NTRFNONREF//u-1\n:86:/EREF/P-1/"
        in platform.statement("alipay", DAY, "sta", zone="Asia/Shanghai").decode()
    )
    assert b"<EndToEndId>P-1</EndToEndId>" in platform.statement("alipay", DAY, "xml", zone="Asia/Shanghai")
    platform.order_fault("server_error", "statement")
    with pytest.raises(requests.HTTPError):
        platform.statement("alipay", DAY)


@pytest.mark.parametrize(
    ("file_format", "reader", "statuses"),
    [
        ("csv", CsvStatement, ["success", "failed", "refunded"]),
        ("sta", partial(Mt940Statement, zone_name="UTC"), ["success", "refunded"]),
        ("xml", partial(CamtStatement, zone_name="UTC"), ["success", "refunded"]),
    ],
)
def test_ledger_reads_what_the_platform_writes(
    platform: RunningPlatform, file_format: str, reader: Any, statuses: list[str]
) -> None:
    for number, status in enumerate(("success", "failed", "refunded")):
        said = {"status": status, "time": f"{DAY}T08:00:0{number}Z", "upstream_ref": f"u-{status}"}
        platform.make_payment("alipay", f"P-{status}", "12.50", **said)
    content = platform.statement("alipay", DAY, file_format)
    rows = list(reader([content], Terms.of_config({}, zone_name="UTC")).rows())
    assert [(row.upstream_ref, row.order_no, row.amount, row.currency, row.status) for row in rows] == [
        (f"u-{status}", f"P-{status}", 1250, "CNY", status) for status in statuses
    ]
    assert {row.occurred_at.date().isoformat() for row in rows} == {DAY}


def test_stripe_is_spoken_to_by_its_own_library(platform: RunningPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_BASE", platform.url)
    channel = Channel("stripe", "Stripe", "stripe", {}, {"api_key": platform.secret})
    platform.make_payment("stripe", "P-1", "12.50", currency="USD", fee="0.59", upstream_ref="pi_1")
    allowed = frozenset({platform.place})
    for upstream_ref in ("pi_1", None):
        answer = ask(channel, order_no="P-1", upstream_ref=upstream_ref, allowed=allowed)
        [payment] = answer.payments
        assert (payment.upstream_ref, payment.amount, payment.fee, payment.status) == ("pi_1", 1250, 59, "success")
    assert ask(channel, order_no="P-1", upstream_ref="pi_2", allowed=allowed).fault is None


def world(**terms: Any) -> Plan:
    return make_plan(
        **{"channels": ("a", "b", "c"), "first_day": date(2026, 10, 1), "days": 30, "orders": 6_000, "rate": 0.002}
        | terms
    )


def test_same_seed_plants_the_same_world() -> None:
    assert world(seed=7) == world(seed=7)
    assert world(seed=7).planted != world(seed=8).planted


def test_planted_mismatches_are_all_that_does_not_fit() -> None:
    plan = world(zone_name="Asia/Shanghai")
    assert Counter(planted.kind for planted in plan.planted) == dict.fromkeys(KINDS, 2)
    assert {order.channel for order in plan.orders} == {"a", "b", "c"}
    ours = {order.order_no: order for order in plan.orders}
    theirs: dict[Any, list[Any]] = {}
    for payment in plan.payments:
        theirs.setdefault(payment.order_no, []).append(payment)
    status = {"settled": "success", "failed": "failed", "pending": "pending"}
    odd = set()
    for order_no in ours.keys() | theirs.keys():
        order, payments = ours.get(order_no), theirs.get(order_no, [])
        fits = order is not None and [(p.status, p.amount) for p in payments] == [(status[order.status], order.amount)]
        if not fits:
            odd.add(order_no)
    assert odd == {planted.order_no for planted in plan.planted}
    assert {payment.account for payment in plan.payments} == {"a", "b", "c"}
    assert all("2026-10-01" <= planted.day <= "2026-10-30" for planted in plan.planted)


def test_platform_plays_a_planted_world(platform: RunningPlatform) -> None:
    planted = platform.plant(channels=["a"], first_day="2026-10-01", days=2, orders=100, rate=0.06, seed=3)
    assert Counter(row["kind"] for row in planted["planted"]) == dict.fromkeys(KINDS, 1)
    rows = [platform.statement("a", day).decode().splitlines() for day in ("2026-10-01", "2026-10-02")]
    assert sum(len(lines) - 1 for lines in rows) == len(platform.payments("a")) == 100
    assert len(planted["orders"]) == 99


def test_what_is_asked_for_wrongly_is_refused(platform: RunningPlatform) -> None:
    for path, body in (
        ("payments", {"account": "a", "order_no": "P", "amount": "1.00", "currency": "CNY", "status": "paid"}),
        ("faults", {"kind": "gremlins", "target": "query"}),
        ("faults", {"kind": "duplicate", "target": "query"}),
        ("deliver", {"account": "a", "upstream_refs": ["nobody"]}),
        ("plant", {"channels": ["a"], "first_day": "2026-10-01", "days": 1, "orders": 3}),
    ):
        assert requests.post(f"{platform.url}/control/{path}", json=body, timeout=5).status_code == 422
