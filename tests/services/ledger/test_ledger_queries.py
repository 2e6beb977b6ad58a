"""Reads: every filter, every page, every sum, and nothing of a merchant that the caller does not see."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.filters import whole_hours
from services.ledger.queries import entries as queries
from services.ledger.sums import fold_deltas
from services.ledger.usecases.postings import log_filter
from shared.contracts.ledger import UnknownBalanceType
from shared.errors import InvalidRequest
from shared.paging import InvalidCursor, encode_cursor
from shared.passport import Passport
from tests.conftest import AURORA, BOREALIS
from tests.services.ledger.conftest import batch, change, post_all, single

NOTHING = dict.fromkeys(
    (
        *("date_text", "from_time", "to_time", "user_id", "holder_type", "merchant_id", "currency", "order_no"),
        *("min_amount", "max_amount"),
    )
)


def wanted(zone_name: str = "UTC", types: list[Any] | None = None, groups: Any = (), **filters: Any) -> Any:
    """Return a filter; without any, of today."""
    return log_filter(zone_name=zone_name, types=types or [], groups=groups, **NOTHING | filters)


@pytest.fixture
def filled(session: Session) -> Session:
    """Changes of two merchants, in three currencies and seven types, some in sums that are folded."""
    changes = [
        change(amount="100.00", order_no="P-1", channel="alipay"),
        change(type=323, amount="-30.00", order_no="P-2"),
        change(type=326, amount="-0.50", order_no=None, reason="rounding"),
        change(type=335, amount="7.00", order_no=None, reason="sorry"),
        change(user_id="user-2", amount="55.55", currency="USDT", order_no="P-3"),
        change(user_id=None, amount="1000", currency="JPY", order_no="P-4"),
        change(merchant_id=BOREALIS, amount="20.00", order_no="P-5"),
    ]
    post_all(session, batch(changes))
    fold_deltas(session)
    post_all(session, batch([change(type=231, amount="0", order_no=None), change(type=324, amount="1.00")]))
    return session


def amounts(session: Session, passport: Passport, **filters: Any) -> list[str]:
    page = queries.list_balance_logs(session, passport, wanted(**filters), limit=100, cursor=None)
    return [entry["amount"] for entry in page["items"]]


EVERYTHING = ["1.00", "0", "20.00", "1000", "55.550000", "7.00", "-0.50", "-30.00", "100.00"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, EVERYTHING),
        ({"user_id": "user-1"}, ["1.00", "0", "20.00", "7.00", "-0.50", "-30.00", "100.00"]),
        ({"user_id": "user-1", "merchant_id": BOREALIS}, ["20.00"]),
        ({"holder_type": "merchant"}, ["1000"]),
        ({"currency": "USDT"}, ["55.550000"]),
        ({"order_no": "P-2"}, ["-30.00"]),
        ({"order_no": "P-none"}, []),
        ({"types": ["321"]}, ["20.00", "1000", "55.550000", "100.00"]),
        ({"types": ["323", 231]}, ["0", "-30.00"]),
        ({"types": ["Admin Adjust"]}, ["7.00", "-0.50"]),
        ({"groups": ["Purchase"]}, ["7.00"]),
        ({"types": ["Admin Adjust"], "groups": ["Purchase"]}, ["7.00"]),
        ({"min_amount": "30"}, ["1000", "55.550000", "-30.00", "100.00"]),
        ({"min_amount": "30", "max_amount": "99.99"}, ["55.550000", "-30.00"]),
        ({"max_amount": "1", "currency": "CNY"}, ["1.00", "0", "-0.50"]),
        ({"min_amount": "55.5500001"}, "InvalidRequest"),
        ({"min_amount": "-1"}, "InvalidRequest"),
        ({"merchant_id": "mer_none"}, []),
        ({"date_text": "2020-01-01"}, []),
        ({"from_time": "2020-01-01T00:00:00Z"}, EVERYTHING),
        ({"to_time": "2020-01-01T00:00:00Z"}, []),
        ({"from_time": "2020-01-01T00:00:00Z", "to_time": "2099-01-01T00:00:00+08:00"}, EVERYTHING),
        ({"date_text": "2020-01-01", "from_time": "2020-01-01T00:00:00Z"}, "InvalidRequest"),
        ({"date_text": "2020-02-30"}, "InvalidRequest"),
        ({"date_text": "9999-12-31"}, "InvalidRequest"),
        ({"from_time": "yesterday"}, "InvalidRequest"),
    ],
)
def test_each_filter_leaves_what_it_says(
    filled: Session, alice: Passport, filters: dict[str, Any], found: list[str] | str
) -> None:
    if isinstance(found, str):
        with pytest.raises(InvalidRequest):
            amounts(filled, alice, **filters)
    else:
        assert amounts(filled, alice, **filters) == found


def test_unknown_type_name_is_refused(filled: Session, alice: Passport) -> None:
    with pytest.raises(UnknownBalanceType):
        amounts(filled, alice, types=["Bonus"])


def test_day_is_one_of_the_systems_time_zone(filled: Session, alice: Passport) -> None:
    now = datetime.now(UTC)
    far_east, far_west = "Pacific/Kiritimati", "Pacific/Niue"  # 25 hours apart, so never the same day
    assert amounts(filled, alice, zone_name=far_east) == EVERYTHING
    east = (now + timedelta(hours=14)).date().isoformat()
    assert amounts(filled, alice, zone_name=far_east, date_text=east) == EVERYTHING
    assert amounts(filled, alice, zone_name=far_west, date_text=east) == []


def test_pages_hold_every_row_once_and_newest_first(filled: Session, alice: Passport) -> None:
    found, cursor = [], None
    while True:
        page = queries.list_balance_logs(filled, alice, wanted(), limit=2, cursor=cursor)
        assert len(page["items"]) <= 2
        found += [entry["amount"] for entry in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == EVERYTHING


@pytest.mark.parametrize("position", [["x", 1, 2], [1, 2], [1.5, 1, 1], [-1, 1, 1], [2**62, 1, 1], [True, 1, 1]])
def test_cursor_of_another_list_is_refused(session: Session, alice: Passport, position: list[Any]) -> None:
    with pytest.raises(InvalidCursor):
        queries.list_balance_logs(session, alice, wanted(), limit=2, cursor=encode_cursor(position))


def test_code_that_nobody_knows_any_more_is_shown(filled: Session, alice: Passport) -> None:
    filled.execute(sa.text("update entries set type = 234 where order_no = 'P-2'"))
    page = queries.list_balance_logs(filled, alice, wanted(types=["234"]), limit=2, cursor=None)
    [entry] = page["items"]
    assert (entry["type"], entry["type_name"], entry["group"]) == (234, "Unknown (234)", "Unknown")


@pytest.mark.parametrize(("actor_type", "operators"), [("user", ["Alice"] * 3), ("api_key", ["Alice", "Alice", None])])
def test_adjustment_names_whoever_made_it(
    session: Session, alice: Passport, actor_type: str, operators: list[str | None]
) -> None:
    maker = replace(alice, actor_type=actor_type)
    changes = [
        change(),
        change(type=326, order_no=None, reason="sorry"),
        change(type=341, order_no=None, reason="gift"),
    ]
    for made in changes:
        post_all(session, single(made, passport=maker))
    page = queries.list_balance_logs(session, alice, wanted(), limit=5, cursor=None)
    assert [entry["operator"] for entry in page["items"]] == operators


def test_log_is_cut_to_the_callers_merchants(filled: Session, bob: Passport, charlie: Passport) -> None:
    assert amounts(filled, charlie) == ["20.00"]
    assert "20.00" not in amounts(filled, bob)
    assert amounts(filled, charlie, merchant_id=AURORA) == []
    assert amounts(filled, charlie, order_no="P-1") == []
    assert amounts(filled, charlie, user_id="user-1", min_amount="0") == ["20.00"]


def summary(session: Session, passport: Passport, **filters: Any) -> dict[tuple[int, str], tuple[Any, ...]]:
    view = queries.summarize_balance_logs(session, passport, wanted(**filters))
    return {
        (row["type"], row["currency"]): (row["count"], row["increase"], row["decrease"], row["net"])
        for row in view["items"]
    }


def test_summary_adds_up_each_type(filled: Session, alice: Passport) -> None:
    assert summary(filled, alice) == {
        (231, "CNY"): (1, "0", "0", "0"),
        (321, "CNY"): (2, "120.00", "0", "120.00"),
        (321, "JPY"): (1, "1000", "0", "1000"),
        (321, "USDT"): (1, "55.550000", "0", "55.550000"),
        (323, "CNY"): (1, "0", "-30.00", "-30.00"),
        (324, "CNY"): (1, "1.00", "0", "1.00"),
        (326, "CNY"): (1, "0", "-0.50", "-0.50"),
        (335, "CNY"): (1, "7.00", "0", "7.00"),
    }
    totals = queries.summarize_balance_logs(filled, alice, wanted())["totals"]
    assert [(t["currency"], t["count"], t["increase"], t["decrease"], t["net"]) for t in totals] == [
        ("CNY", 7, "128.00", "-30.50", "97.50"),
        ("JPY", 1, "1000", "0", "1000"),
        ("USDT", 1, "55.550000", "0", "55.550000"),
    ]


def test_summary_from_hours_is_that_from_entries(filled: Session, alice: Passport, charlie: Passport) -> None:
    for passport in (alice, charlie):
        for filters in ({}, {"merchant_id": AURORA}, {"currency": "CNY"}, {"types": ["Recharge", "Payment"]}):
            rolled_up = summary(filled, passport, **filters)
            assert rolled_up == summary(filled, passport, **filters, min_amount="0")


def test_summary_of_part_of_an_hour_counts_entries(filled: Session, alice: Passport) -> None:
    [first] = filled.execute(sa.text("select created_at from entries order by created_at limit 1")).scalars()
    whole = {"from_time": (first - timedelta(hours=3)).isoformat(), "to_time": (first + timedelta(hours=3)).isoformat()}
    assert summary(filled, alice, **whole) == summary(filled, alice)
    rest = whole | {"from_time": (first + timedelta(microseconds=1)).isoformat()}
    assert summary(filled, alice, **rest)[321, "CNY"] == (1, "20.00", "0", "20.00")


def test_summary_is_cut_to_the_callers_merchants(filled: Session, charlie: Passport) -> None:
    assert summary(filled, charlie) == {(321, "CNY"): (1, "20.00", "0", "20.00")}
    assert summary(filled, charlie, merchant_id=AURORA) == {}


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        ("10:00", "12:00", ("10:00", "12:00")),
        ("10:01", "12:59", ("11:00", "12:00")),
        ("10:01", "11:59", None),
        ("10:30", "10:40", None),
        ("12:00", "10:00", None),
    ],
)
def test_whole_hours_lie_within_the_range(start: str, end: str, hours: tuple[str, str] | None) -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(f"2026-11-24T{text}:00Z")

    assert whole_hours(at(start), at(end)) == (hours and (at(hours[0]), at(hours[1])))


def account_page(session: Session, passport: Passport, **filters: Any) -> list[tuple[str, str, str]]:
    nothing = dict.fromkeys(("merchant_id", "user_id", "holder_type", "currency"))
    page = queries.list_accounts(session, passport, **nothing | filters, limit=50, cursor=None)  # type: ignore[arg-type]
    return [(a["holder_id"], a["currency"], a["balance"]) for a in page["items"]]


def test_accounts_are_filtered_and_cut(filled: Session, alice: Passport, bob: Passport, charlie: Passport) -> None:
    assert set(account_page(filled, alice)) == {
        ("user-1", "CNY", "77.50"),
        ("user-2", "USDT", "55.550000"),
        (AURORA, "JPY", "1000"),
        ("user-1", "CNY", "20.00"),
    }
    assert account_page(filled, alice, holder_type="merchant") == [(AURORA, "JPY", "1000")]
    assert account_page(filled, bob, user_id="user-1") == [("user-1", "CNY", "77.50")]
    assert account_page(filled, charlie) == [("user-1", "CNY", "20.00")]
    assert account_page(filled, charlie, merchant_id=AURORA) == []
    assert account_page(filled, alice, currency="USDT") == [("user-2", "USDT", "55.550000")]


def test_account_pages_go_on(filled: Session, alice: Passport) -> None:
    nothing = dict.fromkeys(("merchant_id", "user_id", "holder_type", "currency"))
    first = queries.list_accounts(filled, alice, **nothing, limit=3, cursor=None)
    second = queries.list_accounts(filled, alice, **nothing, limit=3, cursor=first["next_cursor"])
    assert (len(first["items"]), len(second["items"]), second["next_cursor"]) == (3, 1, None)


def test_account_says_what_is_held(filled: Session, alice: Passport) -> None:
    filled.execute(sa.text("update accounts set held = 1000 where balance = 7750"))
    [_, account] = queries.list_user_accounts(filled, alice, user_id="user-1")
    assert (account["balance"], account["held"], account["available"]) == ("77.50", "10.00", "67.50")


def test_accounts_of_a_user_who_is_nobodys_are_not_found(filled: Session, alice: Passport, charlie: Passport) -> None:
    for passport, user_id in ((alice, "nobody"), (charlie, "user-2")):
        with pytest.raises(queries.AccountNotFound):
            queries.list_user_accounts(filled, passport, user_id=user_id)
    assert [a["balance"] for a in queries.list_user_accounts(filled, charlie, user_id="user-1")] == ["20.00"]


def test_trial_balance_is_zero_folded_or_not(filled: Session, alice: Passport, charlie: Passport) -> None:
    before = queries.read_trial_balance(filled, alice)
    assert [(t["currency"], t["sum"]) for t in before["items"]] == [("CNY", "0"), ("JPY", "0"), ("USDT", "0")]
    assert before["items"][0]["holders"] == "97.50"
    assert {a["name"]: a["balance"] for a in before["items"][0]["system_accounts"]} == {
        "adjustments": "-6.50",
        "channel_clearing": "-20.00",
        "channel_clearing:alipay": "-100.00",
        "revenue:orders": "30.00",
        "revenue:refunds": "-1.00",
    }
    fold_deltas(filled)
    assert queries.read_trial_balance(filled, alice) == before
    assert [(t["sum"], t["holders"]) for t in queries.read_trial_balance(filled, charlie)["items"]] == [("0", "20.00")]


@pytest.fixture(autouse=True)
def _not_at_midnight() -> None:
    """Tests of today need a today that does not end meanwhile."""
    now = datetime.now(UTC)
    if now.hour == 23 and now.minute == 59:
        pytest.skip("it is nearly midnight")
