"""A payment platform's file goes through the gateway into the books, once, whole, and whatever dies meanwhile."""

import io
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.e2e.conftest import Api, Platform, eventually

HEADER = "upstream_ref,order_no,amount,fee,currency,status,time\n"


@pytest.fixture
def channel(platform: Platform) -> str:
    """A fresh channel."""
    code = f"pay-{secrets.token_hex(4)}"
    answer = platform.admin.post("/channels", {"code": code, "name": code, "kind": "statement"})
    assert answer.status_code == 201, answer.text
    return code


def rows(count: int, *, stem: str = "U", amount: str = "10.00") -> str:
    return "".join(
        f"{stem}{n:07},O-{stem}{n:07},{amount},0.06,CNY,success,2026-11-22T{n % 24:02}:{n % 60:02}:00Z\n"
        for n in range(count)
    )


def send(api: Api, channel: str, content: Any, *, key: str | None = None, **query: str) -> requests.Response:
    """Send a file as the body."""
    data = content.encode() if isinstance(content, str) else content
    headers = {"Content-Type": "text/csv"} | ({} if key is None else {"Idempotency-Key": key})
    path = f"{api.url}/api/v1/channels/{channel}/statements"
    return api.http.post(path, data=data, params=query, headers=headers, timeout=120)


def finished(platform: Platform, statement_id: str) -> Any:
    """Wait until a statement is imported or refused."""

    def look() -> Any:
        answer = platform.admin.get(f"/statements/{statement_id}")
        return answer.status_code == 200 and answer.json()["status"] != "importing" and answer.json()

    return eventually(look, within_seconds=90)


def test_a_statement_becomes_records_that_an_order_shows(platform: Platform, channel: str) -> None:
    merchant_id, number = platform.merchant(), f"R-{secrets.token_hex(6)}"
    order = {
        "order_no": number, "merchant_id": merchant_id, "user_id": "u", "kind": "recharge", "amount": "12.50",
        "currency": "CNY", "channel": channel,
    }  # fmt: skip
    assert platform.admin.post("/orders", order).status_code == 201
    content = HEADER + rows(10_000) + f"{number}-up,{number},12.50,0.10,CNY,success,2026-11-22T09:30:00+08:00\n"
    form = {"file": ("day.csv", io.BytesIO(content.encode()), "text/csv")}
    path = f"{platform.admin.url}/api/v1/channels/{channel}/statements"
    sent = platform.admin.http.post(path, files=form, timeout=60)
    assert sent.status_code in (201, 202), sent.text
    statement = finished(platform, sent.json()["statement_id"])
    assert (statement["status"], statement["rows_new"], statement["filename"]) == ("imported", 10_001, "day.csv")
    assert (statement["rows_done"], statement["percent_done"]) == (10_001, 100)
    [listed] = platform.admin.get("/statements", channel=channel).json()["items"]
    assert listed == statement
    operator = platform.person(roles=["operator"], merchants=[merchant_id])
    [record] = operator.get(f"/orders/{number}").json()["upstream_records"]
    assert (record["upstream_ref"], record["amount"], record["fee"], record["source"], record["line"]) == (
        f"{number}-up", "12.50", "0.10", "statement", 10_002,
    )  # fmt: skip
    records = f"/statements/{statement['statement_id']}/records"
    shown = platform.admin.get(records, order_no=number).json()
    assert shown == {"items": [record | {"statement_id": statement["statement_id"]}], "next_cursor": None}
    first = platform.admin.get(records, limit=2).json()
    assert [item["line"] for item in first["items"]] == [2, 3]
    second = platform.admin.get(records, limit=2, cursor=first["next_cursor"]).json()
    assert [item["line"] for item in second["items"]] == [4, 5]
    everything = platform.admin.http.get(
        f"{platform.admin.url}/api/v1{records}", headers={"Accept": "text/csv"}, timeout=60
    )
    assert len(everything.text.splitlines()) == 1 + 10_001
    assert operator.get(records).json()["code"] == "statements_are_for_all"
    assert operator.get("/statements").json()["code"] == "statements_are_for_all"
    assert send(operator, channel, content).json()["code"] == "statements_are_for_all"

    twice = send(platform.admin, channel, content)
    assert (twice.status_code, twice.json()["code"]) == (409, "statement_already_imported")
    assert twice.json()["statement_id"] == statement["statement_id"]
    later = send(
        platform.admin, channel, content.replace("10.00", "11.00") + "U-new,,1.00,,CNY,pending,2026-11-22T09:30:00Z\n"
    )
    after = finished(platform, later.json()["statement_id"])
    assert (after["rows_new"], after["rows_changed"], after["rows_unchanged"]) == (1, 10_000, 1)

    def acts() -> set[str]:
        found = platform.admin.get("/logs", resource_id=statement["statement_id"], limit=100).json()["items"]
        return {row["action"] for row in found if row["log_type"] == "operation"}

    eventually(lambda: "ledger.import_statement" in acts())


def test_bad_rows_are_named_and_kept_out(platform: Platform, channel: str) -> None:
    content = HEADER + rows(100) + "X1,O,1.234,,CNY,success,2026-11-22T09:30:00Z\nX2,O,1\n" + rows(3, stem="V")
    refused = send(platform.admin, channel, content)
    assert (refused.status_code, refused.json()["code"]) == (422, "statement_invalid")
    assert [(fault["line"], fault["column"]) for fault in refused.json()["faults"]] == [(102, "amount"), (103, None)]
    shown = platform.admin.get(f"/statements/{refused.json()['statement_id']}").json()
    assert (shown["status"], shown["faults"]) == ("refused", refused.json()["faults"])
    kept = send(platform.admin, channel, content, partial="true")
    assert (kept.status_code, kept.json()["rows_new"], kept.json()["rows_refused"]) == (201, 103, 2)
    assert send(platform.admin, "nowhere", content).json()["code"] == "channel_not_found"


def test_a_body_without_a_length_comes_in_as_a_stream(platform: Platform, channel: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield HEADER.encode()
        for n in range(30):
            yield rows(1000, stem=f"S{n}-").encode()

    sent = send(platform.admin, channel, pieces())
    assert sent.status_code in (201, 202), sent.text
    assert finished(platform, sent.json()["statement_id"])["rows_new"] == 30_000


def send_half(api: Api, channel: str, head: str, body: bytes) -> bytes:
    """Send the beginning of a request and go. Returns: what is answered all the same."""
    place = urlsplit(api.url)
    request = f"POST /api/v1/channels/{channel}/statements HTTP/1.1\r\nHost: {place.netloc}\r\n"
    request += f"Authorization: {api.http.headers['Authorization']}\r\nContent-Type: text/csv\r\n{head}\r\n\r\n"
    with socket.create_connection((str(place.hostname), place.port or 80), timeout=30) as connection:
        connection.sendall(request.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_half_a_file_is_no_file(platform: Platform, channel: str, is_chunked: bool) -> None:
    half = (HEADER + rows(50_000)).encode()  # ends where a row ends: nothing in it says that more was to come
    if is_chunked:
        answer = send_half(platform.admin, channel, "Transfer-Encoding: chunked", f"{len(half):x}\r\n".encode() + half)
    else:
        answer = send_half(platform.admin, channel, f"Content-Length: {len(half) + 1000}", half)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert platform.admin.get("/statements", channel=channel).json()["items"] == []
    [upload] = platform.admin.get("/statements", channel=channel, status="abandoned").json()["items"]
    assert (upload["rows_new"], upload["sha256"]) == (0, None)
    assert send(platform.admin, channel, half).status_code == 202


def test_a_file_that_a_gateway_took_with_it_may_be_sent_again_at_once(platform: Platform, channel: str) -> None:
    content = HEADER + rows(60_000)

    def pieces() -> Iterator[bytes]:
        yield content[:1_500_000].encode()
        for parent in platform.system.kill("gateway", signal.SIGCONT):
            workers = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            for pid in [parent, *map(int, workers)]:
                os.kill(pid, signal.SIGKILL)
        yield content[1_500_000:].encode()

    with pytest.raises(requests.ConnectionError):
        send(platform.admin, channel, pieces())
    platform.system.wait_ready()
    sent = send(platform.admin, channel, content)
    assert sent.status_code == 202, sent.text
    statement = finished(platform, sent.json()["statement_id"])
    assert (statement["status"], statement["rows_new"]) == ("imported", 60_000)


def test_a_ledger_that_is_killed_while_it_imports_imports_it_all_once(platform: Platform, channel: str) -> None:
    count = 200_000
    content = HEADER + rows(count) + '"Q",O-Q,1.00,,CNY,success,2026-11-22T09:30:00Z\n'  # so that each row is read
    sent = send(platform.admin, channel, content)
    assert sent.status_code == 202, sent.text
    statement_id = sent.json()["statement_id"]
    seen: list[int] = []

    def is_under_way() -> bool:
        view = platform.admin.get(f"/statements/{statement_id}").json()
        seen.append(view["rows_done"])
        return bool(view["status"] == "importing" and view["rows_done"] > 0)

    eventually(is_under_way)
    platform.system.kill("ledger", signal.SIGKILL)
    statement = finished(platform, statement_id)
    assert (statement["status"], statement["rows_new"], statement["rows_unchanged"]) == ("imported", count + 1, 0)
    assert seen[-1] < count
    platform.system.wait_ready()


def test_a_ledger_that_is_killed_while_a_file_comes_in_gets_it_whole(platform: Platform, channel: str) -> None:
    has_killed = False
    key = secrets.token_hex(8)

    def pieces() -> Iterator[bytes]:
        nonlocal has_killed
        yield HEADER.encode()
        for n in range(60):
            if n == 30 and not has_killed:
                has_killed = True
                platform.system.kill("ledger", signal.SIGKILL)
            yield rows(1000, stem=f"K{n}-").encode()

    def accepted() -> requests.Response | None:
        answer = send(platform.admin, channel, pieces(), key=key)
        # What was asked for while it died may be 503 `outcome_unknown`: the same key says what became of it.
        assert answer.status_code in (202, 503), answer.text
        return answer if answer.status_code == 202 else None

    sent = eventually(accepted, within_seconds=60)
    statement = finished(platform, sent.json()["statement_id"])
    assert (statement["status"], statement["rows_new"]) == ("imported", 60_000)
    platform.system.wait_ready()
