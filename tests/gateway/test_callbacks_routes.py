"""The route of callbacks: open to everybody, its body passed on as it came, its crowd bounded."""

import io
from typing import Any

import pytest

from gateway.api import callbacks
from gateway.failures import FAILURES_MAX, WINDOW_SECONDS, Failures
from shared.contracts.channels import CALLBACK_BYTES_MAX, CallbackRefused, CallbackTooLarge, ChannelUnreachable

PATH = "/api/v1/channels/alipay/callbacks"
HEADERS = {"webhook-id": "msg_1", "webhook-timestamp": "1763971200", "webhook-signature": "v1,c2ln"}
BODY = b'{ "order_no":"P-1",  "amount" : "10.00", "unknown": "\xe2\x82\xac" }'
ANSWER = {"outcome": "settled", "order_no": "P-1", "upstream_ref": "up-1"}


@pytest.fixture(autouse=True)
def _no_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "_refused", Failures())


def send(client: Any, body: bytes = BODY, **headers: str) -> Any:
    return client.post(PATH, data=body, headers=HEADERS | headers, content_type="application/json")


def test_body_reaches_the_ledger_as_it_came_and_without_a_sign_in(gateway: Any, services: Any) -> None:
    services.answer("ledger", "receive_callback", ANSWER)
    answer = send(gateway.nobody)
    assert (answer.status_code, answer.json) == (200, ANSWER)
    [call] = services.calls_of("ledger", "receive_callback")
    assert call.arguments == {"code": "alipay", "headers": HEADERS | {"stripe-signature": ""}, "body": BODY.decode()}
    assert (call.passport.actor_id, dict(call.passport.permissions)) == ("anonymous", {})


def test_missing_headers_are_passed_on_as_nothing(gateway: Any, services: Any) -> None:
    services.answer("ledger", "receive_callback", CallbackRefused())
    answer = gateway.nobody.post(PATH, data=BODY)
    assert (answer.status_code, answer.json["code"]) == (401, "callback_refused")
    [call] = services.calls_of("ledger", "receive_callback")
    assert set(call.arguments["headers"].values()) == {""}


def test_signature_of_stripe_is_passed_on_and_an_event_may_be_ignored(gateway: Any, services: Any) -> None:
    ignored = {"outcome": "ignored", "order_no": None, "upstream_ref": None}
    services.answer("ledger", "receive_callback", ignored)
    answer = gateway.nobody.post(PATH, data=BODY, headers={"Stripe-Signature": "t=1,v1=ab"})
    assert (answer.status_code, answer.json) == (200, ignored)
    [call] = services.calls_of("ledger", "receive_callback")
    assert call.arguments["headers"]["stripe-signature"] == "t=1,v1=ab"


def test_header_that_stands_twice_is_passed_on_as_one(gateway: Any, services: Any) -> None:
    services.answer("ledger", "receive_callback", CallbackRefused())
    headers = [*HEADERS.items(), ("webhook-id", "msg_2")]
    assert gateway.nobody.post(PATH, data=BODY, headers=headers).status_code == 401
    [call] = services.calls_of("ledger", "receive_callback")
    assert call.arguments["headers"]["webhook-id"] == "msg_1, msg_2"


def test_body_that_is_no_text_or_too_large_reaches_nobody(gateway: Any, services: Any) -> None:
    assert send(gateway.nobody, b"\xff\xfe").status_code == 400
    for size in (CALLBACK_BYTES_MAX + 1, 1024 * 1024 + 1):
        assert send(gateway.nobody, b"x" * size).status_code == 413
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    stream = io.BytesIO(b"x" * (CALLBACK_BYTES_MAX + 1))
    answer = gateway.nobody.post(PATH, input_stream=stream, headers=HEADERS, environ_overrides=chunked)
    assert answer.status_code == 413
    assert services.calls_of("ledger", "receive_callback") == []


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [(ChannelUnreachable(retry_after_seconds=30), 503, "30"), (CallbackTooLarge(), 413, None)],
)
def test_refusals_say_whether_to_deliver_again(
    gateway: Any, services: Any, error: Exception, status: int, retry_after: str | None
) -> None:
    services.answer("ledger", "receive_callback", error)
    answer = send(gateway.nobody)
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, retry_after)


def test_who_guesses_signatures_waits_and_costs_the_ledger_nothing_more(gateway: Any, services: Any) -> None:
    services.answer("ledger", "receive_callback", CallbackRefused())
    statuses = [send(gateway.nobody).status_code for _ in range(FAILURES_MAX + 5)]
    assert statuses == [401] * FAILURES_MAX + [429] * 5
    assert len(services.calls_of("ledger", "receive_callback")) == FAILURES_MAX
    assert int(send(gateway.nobody).headers["Retry-After"]) <= WINDOW_SECONDS
    services.answer("ledger", "receive_callback", ANSWER)
    other = gateway.client()
    other.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    assert send(other).status_code == 200


def test_crowd_is_bounded(gateway: Any, services: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    services.answer("ledger", "receive_callback", ANSWER)
    monkeypatch.setattr(callbacks, "WAIT_SECONDS_MAX", 0.05)
    taken = [callbacks._door.acquire(blocking=False) for _ in range(callbacks.AT_ONCE_MAX)]
    try:
        answer = send(gateway.nobody)
    finally:
        for _ in filter(None, taken):
            callbacks._door.release()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert send(gateway.nobody).status_code == 200


def test_failures_are_forgotten_after_the_window() -> None:
    now = [0.0]
    failures = Failures(lambda: now[0])
    for _ in range(FAILURES_MAX):
        failures.add("a")
    assert (failures.seconds_to_wait("a"), failures.seconds_to_wait("b")) == (WINDOW_SECONDS, 0.0)
    now[0] = WINDOW_SECONDS + 1
    assert failures.seconds_to_wait("a") == 0.0


def test_answers_of_the_platform_are_listed_as_they_came(gateway: Any, services: Any) -> None:
    item = {
        "channel": "alipay", "asked_for": "callback", "status_code": 200, "body": '{"payments":[]}', "fault": None,
        "request_id": "req_1", "time": "2026-11-24T08:00:00.000000Z",
    }  # fmt: skip
    services.answer("ledger", "list_upstream_answers", {"items": [item | {"id": 7}], "next_cursor": None})
    answer = gateway.bob.get("/api/v1/orders/P-1/upstream-answers", query_string={"limit": 5})
    assert (answer.status_code, answer.json) == (200, {"items": [item], "next_cursor": None})
    [call] = services.calls_of("ledger", "list_upstream_answers")
    assert call.arguments == {"order_no": "P-1", "limit": 5, "cursor": None}
    assert gateway.nobody.get("/api/v1/orders/P-1/upstream-answers").status_code == 401
