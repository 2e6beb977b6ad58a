"""The Bot API client, against the emulator over real HTTP, and against servers that answer nonsense."""

import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from services.telegram.client import ANSWER_BYTES_MAX, BotApi, BotApiError, Refusal, check_api_url
from simulators.telegram import RunningSimulator, running_simulator

GROUP = -1001000000001
TOKEN = "1000000009:a-token-that-must-never-be-seen-anywhere"


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator(token=TOKEN) as running:
        yield running


@pytest.fixture
def bot(simulator: RunningSimulator) -> Iterator[BotApi]:
    api = BotApi(simulator.url, TOKEN, read_timeout_seconds=0.5)
    yield api
    api.close()


@contextmanager
def server_that_answers(status: int, body: bytes, headers: dict[str, str] | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def refusal_of(api: BotApi, chat_id: int = GROUP, text: str = "x") -> BotApiError:
    with pytest.raises(BotApiError) as error:
        api.send_message(chat_id, text)
    return error.value


def test_message_arrives_and_its_number_comes_back(simulator: RunningSimulator, bot: BotApi) -> None:
    simulator.name_chat(GROUP, "Northwind")
    sent = bot.send_message(GROUP, "<b>100 % & _more_</b>")
    [message] = simulator.messages(GROUP)
    assert (message["message_id"], message["text"]) == (sent.message_id, "<b>100 % & _more_</b>")
    assert sent.chat_title == "Northwind"


@pytest.mark.parametrize(
    ("fault", "refusal", "delivered"),
    [
        ({"kind": "too_many_requests", "retry_after": 7}, Refusal.RATE_LIMITED, 0),
        ({"kind": "server_error"}, Refusal.UNAVAILABLE, 0),
        ({"kind": "bad_gateway"}, Refusal.UNKNOWN, 0),
        ({"kind": "bot_was_kicked"}, Refusal.UNREACHABLE, 0),
        ({"kind": "chat_not_found"}, Refusal.UNREACHABLE, 0),
        ({"kind": "migrated", "migrate_to_chat_id": -1009}, Refusal.MIGRATED, 0),
        ({"kind": "delay", "delay_seconds": 0.8}, Refusal.UNKNOWN, 1),
        ({"kind": "drop_before_delivery"}, Refusal.UNKNOWN, 0),
        ({"kind": "drop_after_delivery"}, Refusal.UNKNOWN, 1),
    ],
)
def test_each_fault_is_told_apart(
    simulator: RunningSimulator, bot: BotApi, fault: dict[str, Any], refusal: Refusal, delivered: int
) -> None:
    simulator.order_fault(**fault)
    error = refusal_of(bot)
    assert error.refusal is refusal
    assert error.retry_after_seconds == (7 if refusal is Refusal.RATE_LIMITED else 0)
    assert error.migrate_to_chat_id == (-1009 if refusal is Refusal.MIGRATED else 0)
    threading.Event().wait(0.5 if delivered else 0)
    assert len(simulator.messages()) == delivered


def test_text_that_telegram_will_never_take_is_refused(bot: BotApi) -> None:
    assert refusal_of(bot, text="x" * 5000).refusal is Refusal.REFUSED


def test_wrong_token_is_no_fault_of_the_message(simulator: RunningSimulator) -> None:
    assert refusal_of(BotApi(simulator.url, "123:wrong")).refusal is Refusal.MISCONFIGURED


def test_server_that_is_not_there_has_delivered_nothing() -> None:
    assert refusal_of(BotApi("http://127.0.0.1:9", TOKEN)).refusal is Refusal.UNAVAILABLE


@pytest.mark.parametrize(
    ("status", "body", "refusal"),
    [
        (200, b"hello", Refusal.UNKNOWN),
        (200, b"[]", Refusal.UNKNOWN),
        (200, b'{"ok": true, "result": true}', Refusal.UNKNOWN),
        (200, b"x" * (ANSWER_BYTES_MAX + 1), Refusal.UNKNOWN),
        (429, b'{"ok": false, "error_code": 429}', Refusal.RATE_LIMITED),
        (404, b"<html>", Refusal.UNAVAILABLE),
    ],
)
def test_nonsense_is_understood_as_far_as_it_can_be(status: int, body: bytes, refusal: Refusal) -> None:
    with server_that_answers(status, body) as url:
        assert refusal_of(BotApi(url, TOKEN)).refusal is refusal


def test_redirect_is_not_followed(simulator: RunningSimulator) -> None:
    target = f"{simulator.url}/bot{TOKEN}/sendMessage?chat_id={GROUP}&text=x"
    with server_that_answers(307, b"", {"Location": target}) as url:
        assert refusal_of(BotApi(url, TOKEN)).refusal is Refusal.UNAVAILABLE
    assert simulator.messages() == []


def test_token_stands_in_no_error_and_no_log(
    simulator: RunningSimulator, bot: BotApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors = [refusal_of(BotApi("http://127.0.0.1:9", TOKEN)), refusal_of(BotApi(simulator.url, f"{TOKEN}x"))]
    for kind in ("server_error", "bad_gateway", "drop_before_delivery", "drop_after_delivery"):
        simulator.order_fault(kind)
        errors.append(refusal_of(bot))
    bot.send_message(GROUP, "x")
    told = caplog.text + "".join("".join(traceback.format_exception(error)) for error in errors)
    assert "BotApiError" in told
    assert TOKEN.split(":")[1] not in told


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://api.telegram.org", True),
        ("https://bot-api.example.com/", True),
        ("http://127.0.0.1:8081", True),
        ("http://[::1]:8081", True),
        ("http://localhost:8081", True),
        ("http://10.1.2.3:8081", True),
        ("http://bot-api:8081", True),
        ("http://api.telegram.org", False),
        ("http://8.8.8.8", False),
        ("https://api.telegram.org@example.com", False),
        ("ftp://127.0.0.1/", False),
        ("https://", False),
        ("", False),
    ],
)
def test_token_crosses_no_internet_in_the_clear(url: str, is_allowed: bool) -> None:
    if is_allowed:
        check_api_url(url)
    else:
        with pytest.raises(ValueError, match="TELEGRAM_API_URL"):
            check_api_url(url)
