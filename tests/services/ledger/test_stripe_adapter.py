"""Stripe is asked by its own library over our own client, and its PaymentIntents are payments."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from services.ledger.adapters import ask
from services.ledger.adapters.answers import Answer, Channel
from services.ledger.adapters.stripe import payment_of

KEY = "sk_test_" + "a" * 24
CHANNEL = Channel("stripe", "Stripe", "stripe", {}, {"api_key": KEY})


def intent(**fields: Any) -> dict[str, Any]:
    settlement = {"id": "txn_1", "object": "balance_transaction", "fee": 59, "currency": "usd"}
    charge = {
        "id": "ch_1", "object": "charge", "created": 1763971200, "refunded": False, "balance_transaction": settlement,
    }  # fmt: skip
    return {
        "id": "pi_1", "object": "payment_intent", "amount": 1000, "amount_received": 1000, "currency": "usd",
        "status": "succeeded",
        "created": 1763971100, "metadata": {"order_no": "P-1"}, "latest_charge": charge,
    } | fields  # fmt: skip


class Stripe:
    """The least of Stripe's API: one answer to everything, and the requests that came."""

    def __init__(self) -> None:
        self.answer: tuple[int, Any] = (200, intent())
        self.searched: tuple[int, Any] | None = None
        self.requests: list[BaseHTTPRequestHandler] = []
        self.place = ""

    def ask(self, upstream_ref: str | None = None, *, is_allowed: bool = True) -> Answer:
        allowed = frozenset({self.place}) if is_allowed else frozenset()
        return ask(CHANNEL, order_no="P-1", upstream_ref=upstream_ref, allowed=allowed)


@pytest.fixture
def stripe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stripe]:
    api = Stripe()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api.requests.append(self)
            is_search = "/search" in self.path and api.searched is not None
            status, content = api.searched if is_search and api.searched else api.answer
            body = content if isinstance(content, bytes) else orjson.dumps(content)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.place = f"127.0.0.1:{server.server_port}"
        monkeypatch.setenv("STRIPE_API_BASE", f"http://{api.place}")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield api
        server.shutdown()


def test_known_payment_is_retrieved(stripe: Stripe) -> None:
    answer = stripe.ask("pi_1")
    [payment] = answer.payments
    assert (payment.order_no, payment.upstream_ref, payment.status) == ("P-1", "pi_1", "success")
    assert (payment.amount, payment.fee, payment.currency) == (1000, 59, "USD")
    assert payment.occurred_at.isoformat() == "2025-11-24T08:00:00+00:00"
    assert (answer.status_code, orjson.loads(answer.body)["id"]) == (200, "pi_1")
    [request] = stripe.requests
    assert urlsplit(request.path).path == "/v1/payment_intents/pi_1"
    assert request.headers["Authorization"] == f"Bearer {KEY}"


def test_unknown_payment_is_searched_by_the_orders_number(stripe: Stripe) -> None:
    stripe.answer = (200, {"object": "search_result", "data": [intent(), intent(id="pi_2")], "has_more": False})
    assert [payment.upstream_ref for payment in stripe.ask().payments] == ["pi_1", "pi_2"]
    query = parse_qs(urlsplit(stripe.requests[0].path).query)
    assert query["query"] == ["metadata['order_no']:'P-1'"]


def found(*intents: Any, has_more: Any = False) -> tuple[int, Any]:
    return (200, {"object": "search_result", "data": list(intents), "has_more": has_more})


def test_payment_that_failed_does_not_hide_another_that_was_paid(stripe: Stripe) -> None:
    failed = intent(status="canceled", amount_received=0)
    stripe.answer = (200, failed)
    stripe.searched = found(failed, intent(id="pi_2"))
    answer = stripe.ask("pi_1")
    assert [(p.upstream_ref, p.status) for p in answer.payments] == [("pi_1", "failed"), ("pi_2", "success")]
    assert [orjson.loads(line)["object"] for line in answer.body.splitlines()] == ["payment_intent", "search_result"]


def test_search_passes_over_orders_whose_numbers_are_alike(stripe: Stripe) -> None:
    stripe.answer = found(intent(id="pi_2", metadata={"order_no": "p-1"}), intent())
    assert [payment.upstream_ref for payment in stripe.ask().payments] == ["pi_1"]


def test_search_that_does_not_end_is_no_answer(stripe: Stripe) -> None:
    stripe.answer = found(intent(status="canceled"), has_more=True)
    assert stripe.ask().fault


def test_payment_that_stripe_does_not_know_is_no_payment(stripe: Stripe) -> None:
    stripe.answer = (404, {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No."}})
    answer = stripe.ask("pi_1")
    assert (answer.payments, answer.fault, answer.status_code) == ((), None, 404)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (401, {"error": {"type": "invalid_request_error", "message": f"Invalid API Key: {KEY}"}}),
        (500, {"error": {"type": "api_error", "message": "Oops."}}),
        (302, {}),
        (200, intent(metadata={"order_no": "P-2"})),
        (200, {"id": "pi_1", "object": "payment_intent"}),
        (200, []),
        (200, "text"),
        (200, None),
        (200, 5),
        (200, b""),
        (200, b"[" * 200_000),
        (200, b"{" + b" " * 300_000 + b"}"),
        (200, gzip.compress(b"{}")),
        (200, intent(id=None)),
        (200, intent(id="pi_ 1")),
        (200, intent(metadata=None)),
        (200, intent(metadata={"order_no": 1})),
        (200, intent(status=[])),
        (200, intent(currency="xxq")),
        (200, intent(currency=None)),
        (200, intent(created=10**18, latest_charge=None)),
        (200, intent(created="1763971200", latest_charge=None)),
    ],
)
def test_answer_that_is_no_proper_one_is_a_fault_without_secrets(stripe: Stripe, status: int, content: Any) -> None:
    stripe.answer = (status, content)
    answer = stripe.ask("pi_1")
    assert answer.payments == ()
    assert answer.fault
    assert KEY not in answer.fault
    assert len(stripe.requests) == 1


def test_address_that_nobody_named_is_not_called(stripe: Stripe) -> None:
    assert stripe.ask("pi_1", is_allowed=False).fault
    assert stripe.requests == []


@pytest.mark.parametrize("amount", ["1000", "10.00", "1e3", "NaN", "Infinity", "-1000", "true", "null", "9" * 5_000])
def test_amount_that_is_no_whole_number_is_no_answer(stripe: Stripe, amount: str) -> None:
    text = f'"{amount}"' if amount == "1000" else amount
    body = orjson.dumps(intent()).replace(b'"amount_received":1000', b'"amount_received":' + text.encode())
    stripe.answer = (200, body)
    answer = stripe.ask("pi_1")
    assert (answer.payments, answer.status_code) == ((), 200)
    assert answer.fault


def test_amount_is_what_came_in_and_not_what_was_asked_for() -> None:
    assert payment_of(intent(amount_received=400)).amount == 400
    assert payment_of(intent(amount_received=0, status="processing")).amount == 1000


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"status": "processing"}, "pending"),
        ({"status": "requires_payment_method"}, "pending"),
        ({"status": "canceled"}, "failed"),
        ({"latest_charge": {"created": 1, "refunded": True}}, "refunded"),
        ({"latest_charge": None}, "success"),
    ],
)
def test_statuses_are_ours(fields: dict[str, Any], status: str) -> None:
    assert payment_of(intent(**fields)).status == status


@pytest.mark.parametrize(
    ("currency", "amount", "minor"), [("jpy", 500, 500), ("kwd", 1500, 1500), ("isk", 500, 5), ("mga", 5, 500)]
)
def test_amounts_are_in_our_minor_units(currency: str, amount: int, minor: int) -> None:
    fields = {"amount": amount, "amount_received": amount}
    assert payment_of(intent(currency=currency, **fields)).amount == minor


def test_fee_in_another_currency_is_not_taken_for_ours() -> None:
    settlement = {"fee": 59, "currency": "eur"}
    assert payment_of(intent(latest_charge={"created": 1, "balance_transaction": settlement})).fee is None
