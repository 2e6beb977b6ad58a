"""Lists: pages by keyset as JSON, and all matching rows as CSV that no spreadsheet runs."""

import csv
import io
from typing import Any

import pytest

from gateway.csv_rows import cell
from shared import errors
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

CSV = {"Accept": "text/csv"}
ROWS = [{"id": f"l{n}", "name": f"lamp {n}", "amount": "-1.50", "currency": "CNY", "secret": "x"} for n in range(5)]


def pages(cursor: str | None = None, limit: int = 50, **_filters: Any) -> dict[str, Any]:
    """Answer two rows a page, as a service does."""
    start = int(cursor or 0)
    following = start + 2
    return {"items": ROWS[start:following], "next_cursor": str(following) if following < len(ROWS) else None}


def test_page_is_what_the_service_answers(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "list_lamps", pages)
    page = gateway.alice.get("/api/v1/lamps?limit=2&cursor=2&name=desk&is_lit=false&date=2026-11-22").get_json()
    assert [item["id"] for item in page["items"]] == ["l2", "l3"]
    assert page["next_cursor"] == "4"
    assert "secret" not in page["items"][0]
    asked = services.calls_of("cards", "list_lamps")[0].arguments
    assert asked == {"limit": 2, "cursor": "2", "name": "desk", "is_lit": False, "day": "2026-11-22"}


def test_limit_is_50_unless_told(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "list_lamps", pages)
    gateway.alice.get("/api/v1/lamps")
    assert services.calls_of("cards", "list_lamps")[0].arguments == {"limit": 50, "cursor": None}


def test_csv_has_all_matching_rows(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "list_lamps", pages)

    response = gateway.alice.get("/api/v1/lamps?limit=1&name=desk", headers=CSV)

    assert response.mimetype == "text/csv"
    assert response.headers["Content-Disposition"] == 'attachment; filename="lamps.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["id"] for row in rows] == ["l0", "l1", "l2", "l3", "l4"]
    assert list(rows[0]) == ["id", "name", "amount", "currency", "bulbs"]
    assert rows[0]["amount"] == "-1.50"
    asked = [call.arguments for call in services.calls_of("cards", "list_lamps")]
    assert [arguments["cursor"] for arguments in asked] == [None, "2", "4"]
    assert {(arguments["limit"], arguments["name"]) for arguments in asked} == {(500, "desk")}


def test_csv_that_cannot_begin_is_a_problem(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "list_lamps", errors.Unavailable())
    response = gateway.alice.get("/api/v1/lamps", headers=CSV)
    assert (response.status_code, response.content_type) == (503, "application/problem+json")


def test_csv_asks_again_for_a_page_that_failed(gateway: Gateway, services: FakeServices) -> None:
    failures = [errors.Unavailable(), errors.DeadlineExceeded()]

    def moody(**arguments: Any) -> Any:
        return failures.pop() if arguments["cursor"] == "2" and failures else pages(**arguments)

    services.answer("cards", "list_lamps", moody)
    assert gateway.alice.get("/api/v1/lamps", headers=CSV).text.count("\r\n") == 6


def test_csv_that_is_cut_short_does_not_look_whole(gateway: Gateway, services: FakeServices) -> None:
    def broken(**arguments: Any) -> Any:
        return errors.Unavailable() if arguments["cursor"] else pages(**arguments)

    services.answer("cards", "list_lamps", broken)
    with pytest.raises(errors.Unavailable):
        _ = gateway.alice.get("/api/v1/lamps", headers=CSV).text


def test_csv_ends_when_the_session_does(
    gateway: Gateway, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("gateway.fresh_cache.time.monotonic", lambda: now)

    def slow(**arguments: Any) -> Any:
        nonlocal now
        now += 5
        services.sessions["ses_alice"] = {"active": False}
        return pages(**arguments)

    services.answer("cards", "list_lamps", slow)
    with pytest.raises(errors.Unauthenticated):
        _ = gateway.alice.get("/api/v1/lamps", headers=CSV).text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (7, "7"),
        ("-12.50", "-12.50"),
        ("+5", "+5"),
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("  =1", "'  =1"),
        ("＝1+1", "'＝1+1"),
        ("plain", "plain"),
        (["a", 1], '["a",1]'),
    ],
)
def test_cell_that_would_run_is_defused(value: Any, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize("accept", ["*/*", "application/json, text/csv;q=0.5", "text/html,*/*;q=0.8"])
def test_json_is_what_others_get(gateway: Gateway, services: FakeServices, accept: str) -> None:
    services.answer("cards", "list_lamps", pages)
    assert gateway.alice.get("/api/v1/lamps", headers={"Accept": accept}).mimetype == "application/json"
