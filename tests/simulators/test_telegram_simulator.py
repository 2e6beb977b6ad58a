"""The Bot API emulator answers as the real one does, and misbehaves on demand."""

import queue
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
import requests

from simulators.telegram import RunningSimulator, running_simulator

GROUP = -1001234567890


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator() as running:
        yield running


def call(simulator: RunningSimulator, method: str, **parameters: Any) -> requests.Response:
    return requests.post(f"{simulator.url}/bot{simulator.token}/{method}", json=parameters, timeout=5)


def test_wrong_token_is_unauthorized(simulator: RunningSimulator) -> None:
    answer = requests.get(f"{simulator.url}/bot123:wrong/getMe", timeout=5)
    assert answer.status_code == 401
    assert answer.json() == {"ok": False, "error_code": 401, "description": "Unauthorized"}


def test_get_me_tells_who_the_bot_is(simulator: RunningSimulator) -> None:
    assert call(simulator, "getMe").json()["result"]["is_bot"] is True


def test_message_arrives_in_its_group(simulator: RunningSimulator) -> None:
    simulator.name_chat(GROUP, "Northwind payments")
    first = call(simulator, "sendMessage", chat_id=GROUP, text="one").json()["result"]
    second = call(simulator, "sendMessage", chat_id=str(GROUP), text="two").json()["result"]
    assert first["chat"] == {"id": GROUP, "type": "supergroup", "title": "Northwind payments"}
    assert second["message_id"] > first["message_id"]
    assert [message["text"] for message in simulator.messages(GROUP)] == ["one", "two"]
    assert simulator.messages(-1) == []


@pytest.mark.parametrize(
    ("parameters", "description"),
    [
        ({"text": "x"}, "Bad Request: chat_id is empty"),
        ({"chat_id": GROUP}, "Bad Request: message text is empty"),
        ({"chat_id": GROUP, "text": "x" * 4097}, "Bad Request: message is too long"),
        ({"chat_id": GROUP, "text": "x", "parse_mode": "Word"}, "Bad Request: unsupported parse_mode"),
        ({"chat_id": 42, "text": "x"}, "Bad Request: chat not found"),
    ],
)
def test_bad_message_is_refused(simulator: RunningSimulator, parameters: dict[str, Any], description: str) -> None:
    answer = call(simulator, "sendMessage", **parameters)
    assert answer.status_code == 400
    assert answer.json()["description"] == description
    assert simulator.messages() == []


@pytest.mark.parametrize(
    ("fault", "status", "parameters"),
    [
        ({"kind": "too_many_requests", "retry_after": 7}, 429, {"retry_after": 7}),
        ({"kind": "server_error"}, 500, None),
        ({"kind": "bot_was_kicked"}, 403, None),
        ({"kind": "chat_not_found"}, 400, None),
        ({"kind": "migrated", "migrate_to_chat_id": -100555}, 400, {"migrate_to_chat_id": -100555}),
    ],
)
def test_fault_refuses_the_next_calls_and_then_ends(
    simulator: RunningSimulator, fault: dict[str, Any], status: int, parameters: dict[str, int] | None
) -> None:
    simulator.order_fault(**fault, times=2)
    for _ in range(2):
        answer = call(simulator, "sendMessage", chat_id=GROUP, text="x")
        assert answer.status_code == answer.json()["error_code"] == status
        assert answer.json().get("parameters") == parameters
    assert simulator.messages() == []
    assert call(simulator, "sendMessage", chat_id=GROUP, text="x").status_code == 200


def test_fault_of_one_chat_leaves_the_others_alone(simulator: RunningSimulator) -> None:
    simulator.order_fault("server_error", chat_id=GROUP, times=None)
    assert call(simulator, "sendMessage", chat_id=-1, text="x").status_code == 200
    assert call(simulator, "sendMessage", chat_id=GROUP, text="x").status_code == 500
    assert call(simulator, "sendMessage", chat_id=GROUP, text="x").status_code == 500
    simulator.clear_faults()
    assert call(simulator, "sendMessage", chat_id=GROUP, text="x").status_code == 200


def test_bad_gateway_answers_no_json(simulator: RunningSimulator) -> None:
    simulator.order_fault("bad_gateway")
    answer = call(simulator, "sendMessage", chat_id=GROUP, text="x")
    assert answer.status_code == 502
    assert "json" not in answer.headers["Content-Type"]


@pytest.mark.parametrize(("kind", "delivered"), [("drop_after_delivery", 1), ("drop_before_delivery", 0)])
def test_dropped_connection_leaves_the_caller_without_an_answer(
    simulator: RunningSimulator, kind: str, delivered: int
) -> None:
    simulator.order_fault(kind)
    with pytest.raises(requests.ConnectionError):
        call(simulator, "sendMessage", chat_id=GROUP, text="x")
    assert len(simulator.messages()) == delivered


def test_delay_holds_the_answer_back(simulator: RunningSimulator) -> None:
    simulator.order_fault("delay", delay_seconds=0.3)
    began = time.monotonic()
    assert call(simulator, "sendMessage", chat_id=GROUP, text="x").status_code == 200
    assert time.monotonic() - began >= 0.3


def test_fault_of_no_known_kind_is_refused(simulator: RunningSimulator) -> None:
    url = f"{simulator.url}/control/faults"
    assert requests.post(url, json={"kind": "gremlins"}, timeout=5).status_code == 422
    assert requests.post(url, json={"kind": "migrated"}, timeout=5).status_code == 422


def test_members_text_reaches_a_bot_that_polls(simulator: RunningSimulator) -> None:
    threading.Timer(0.2, simulator.member_writes, (GROUP, "/help me")).start()
    updates = call(simulator, "getUpdates", timeout=5).json()["result"]
    assert updates[0]["message"]["text"] == "/help me"
    assert updates[0]["message"]["entities"] == [{"type": "bot_command", "offset": 0, "length": 5}]
    confirmed = updates[0]["update_id"] + 1
    assert call(simulator, "getUpdates", offset=confirmed).json()["result"] == []


class WebhookListener(BaseHTTPRequestHandler):
    """Keeps the headers and the body of what is posted to it."""

    heard: ClassVar[queue.Queue[tuple[str, bytes]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.put((self.headers["X-Telegram-Bot-Api-Secret-Token"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_members_text_reaches_the_webhook_with_its_secret(simulator: RunningSimulator) -> None:
    WebhookListener.heard = queue.Queue()
    with HTTPServer(("127.0.0.1", 0), WebhookListener) as listener:
        threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.server_port}/"
        call(simulator, "setWebhook", url=url, secret_token="s3cret")
        assert call(simulator, "getUpdates").status_code == 409
        simulator.member_writes(GROUP, "hello")
        secret, body = WebhookListener.heard.get(timeout=5)
        listener.shutdown()
    assert secret == "s3cret"
    assert b"hello" in body


def test_bot_without_a_webhook_polls_again(simulator: RunningSimulator) -> None:
    call(simulator, "setWebhook", url="http://127.0.0.1:9/")
    assert call(simulator, "getWebhookInfo").json()["result"]["url"] == "http://127.0.0.1:9/"
    call(simulator, "deleteWebhook")
    simulator.member_writes(GROUP, "hello")
    assert len(call(simulator, "getUpdates").json()["result"]) == 1
