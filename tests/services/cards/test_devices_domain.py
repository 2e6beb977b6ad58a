"""Which rows of a device's log are taken, by table; no database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.cards.devices.domain import (
    HeartbeatRule,
    LogRow,
    RefusedRow,
    may_be_shown,
    read_log_row,
)
from shared.times import rfc3339
from tests.services.cards.conftest import VISA

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
CARDS = frozenset({"car_1", "car_2"})
ROW = {"event_id": "e1", "time": rfc3339(NOW), "action": "payment"}


def read(raw: Any) -> LogRow | RefusedRow:
    return read_log_row(raw, now=NOW, card_ids=CARDS)


def test_a_row_needs_an_id_a_time_and_an_action():
    assert read(ROW) == LogRow("e1", NOW, None, "payment", "success", None, None)


def test_a_whole_row_is_read_as_it_is():
    whole = {"result": "failure", "card_id": "car_2", "ip": "2001:DB8::1", "detail": "No\tnetwork\n"}
    assert read(ROW | whole) == LogRow("e1", NOW, "car_2", "payment", "failure", "2001:db8::1", "No\tnetwork\n")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"event_id": None}, "event_id"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": 7}, "event_id"),
        ({"event_id": "x" * 65}, "event_id"),
        ({"event_id": "a\x07"}, "event_id"),
        ({"event_id": "\ud800"}, "event_id"),
        ({"time": None}, "time"),
        ({"time": 5}, "time"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-11-24"}, "time"),
        ({"time": "2026-11-24T12:00:00"}, "time"),
        ({"time": rfc3339(NOW - timedelta(days=401))}, "time"),
        ({"time": rfc3339(NOW + timedelta(days=2))}, "time"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "time"),
        ({"action": None}, "action"),
        ({"action": "Pay ment"}, "action"),
        ({"action": "p" * 41}, "action"),
        ({"action": f"p{VISA}"}, "action"),
        ({"action": "pay\n"}, "action"),
        ({"result": ""}, "result"),
        ({"result": ["ok"]}, "result"),
        ({"card_id": "car_3"}, "card_id"),
        ({"card_id": ["car_1"]}, "card_id"),
        ({"ip": "somewhere"}, "ip"),
        ({"ip": 2130706433}, "ip"),
        ({"ip": f"fe80::1%{VISA}"}, "ip"),
        ({"detail": {"a": 1}}, "detail"),
        ({"detail": "x" * 501}, "detail"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_refuses_its_row_and_is_named(change, field):
    refused = read(ROW | change)
    assert isinstance(refused, RefusedRow)
    assert set(refused.errors) == {field}


def test_all_that_is_wrong_with_a_row_is_said_at_once():
    refused = read({"event_id": "e1"})
    assert isinstance(refused, RefusedRow)
    assert refused.event_id == "e1"
    assert set(refused.errors) == {"time", "action"}


@pytest.mark.parametrize("raw", [None, 1, "row", [], [ROW]])
def test_what_is_no_object_is_no_row(raw):
    assert read(raw) == RefusedRow(None, {"_schema": ["A row is an object."]})


@pytest.mark.parametrize("number", [VISA, "4111 1111 1111 1111", "4111-1111-1111-1111"])
def test_a_card_number_is_masked_in_a_detail_and_repeated_by_no_refusal(number):
    row = read(ROW | {"detail": f"paid with {number}!"})
    assert isinstance(row, LogRow)
    assert number not in str(row)
    assert "1111!" in str(row.detail)
    refused = read({"event_id": number, number: 1})
    assert number not in str(refused)


def test_a_control_character_is_mended():
    row = read(ROW | {"detail": "a\x1bb\ud800c"})
    assert isinstance(row, LogRow)
    assert row.detail == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(
    ("key", "is_shown"),
    [("evt-1", True), (VISA, False), (f"x {VISA} y", False), ("490154203237518", True), ("378282246310005", False)],
)
def test_an_imei_is_shown_and_what_may_be_a_card_number_is_not(key, is_shown):
    assert may_be_shown(key) is is_shown


def test_a_device_is_late_after_its_interval_and_offline_after_its_grace():
    rule = HeartbeatRule(interval_seconds=60, grace_seconds=120)
    assert (rule.interval, rule.silence_max) == (timedelta(seconds=60), timedelta(seconds=180))
