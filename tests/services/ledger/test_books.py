"""The books: figures, the four checks and the rows behind them, closed days, a month as the sum of its days."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger import sums
from services.ledger.domain.figures import BUCKETS
from services.ledger.queries.daily_checks import list_daily_check_rows, read_daily_checks
from services.ledger.queries.figures import list_closed_days, read_monthly_figures
from services.ledger.usecases.archives import archive_entries
from services.ledger.usecases.closed_days import close_day
from services.ledger.verification import prove
from shared.contracts.reconciliations import (
    CheckRowPage,
    DailyView,
    DayAlreadyClosed,
    DayArchived,
    DayNotBegun,
    DayNotOver,
    DayNotReady,
    DayOutOfOrder,
    MonthlyView,
)
from shared.errors import PermissionDenied
from shared.passport import Passport
from shared.times import day_bounds, utc_now
from tests.conftest import BOREALIS
from tests.services.ledger.conftest import THRESHOLD, change, post_all, result_of, single
from tests.services.ledger.mismatches import TERMS, found
from tests.services.ledger.mismatches import correct as correct_mismatch
from tests.services.ledger.orders import add_merchants, create, events, fund, refund, settle
from tests.services.ledger.past import turn_clock
from tests.services.ledger.worlds import ALICE, add_channel, add_order, add_record, open_ones, reconcile

DAY = date(2026, 10, 20)
NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)


@pytest.fixture
def session(session_of: Callable[[str], Session]) -> Session:
    session = session_of("ledger")
    add_merchants(session)
    add_channel(session)
    return session


def daily(session: Session, day: date = DAY, *, passport: Passport = ALICE, zone_name: str = "UTC") -> DailyView:
    return read_daily_checks(session, passport, day=day, zone_name=zone_name, threshold=THRESHOLD)


def monthly(session: Session, first: date = date(2026, 10, 1), *, passport: Passport = ALICE) -> MonthlyView:
    return read_monthly_figures(session, passport, first=first, zone_name="UTC")


def page(session: Session, check: str = "recharge_total", day: date = DAY, **terms: Any) -> CheckRowPage:
    asked: dict[str, Any] = {"currency": None, "channel": None, "is_all": False, "limit": 500, "cursor": None}
    asked |= {"zone_name": "UTC", "passport": ALICE} | terms
    return list_daily_check_rows(session, day=day, check=check, threshold=THRESHOLD, **asked)


def rows(session: Session, check: str, day: date = DAY, **terms: Any) -> list[Any]:
    return page(session, check, day, **terms)["items"]


def failing(view: DailyView) -> dict[str, str]:
    """Return the checks that are not ok, with by how much."""
    return {item["name"]: item["difference"] for item in view["items"] if not item["ok"]}


def recharge(session: Session, order_no: str, amount: str = "100.00", **fields: Any) -> None:
    """Settle a recharge order, and have the platform say so."""
    create(session, order_no=order_no, kind="recharge", amount=amount, **fields)
    settle(session, order_no)
    minor = int(Decimal(amount) * 100)
    add_record(session, f"u-{order_no}", order_no, at=clock(session), amount=minor)


def clock(session: Session) -> datetime:
    return session.execute(sa.text("select clock_timestamp()")).scalar_one()  # type: ignore[no-any-return]


def a_good_day(session: Session) -> None:
    """Recharge, pay, buy and refund at noon of the day; every check of it is ok."""
    turn_clock(session, NOON)
    recharge(session, "r-1", "200.00")
    create(session, order_no="p-1", kind="payment", amount="30.00")
    settle(session, "p-1")
    add_record(session, "u-p-1", "p-1", at=NOON, amount=3000)
    refund(session, "p-1", "10.00")
    create(session, order_no="b-1", kind="purchase", amount="20.00", channel=None)
    settle(session, "b-1")
    result_of(post_all(session, single(change(type=232, amount="-1.00", order_no=None)))[0])


def test_a_good_day_is_ok_in_all_four_checks(session: Session) -> None:
    a_good_day(session)
    view = daily(session)
    assert failing(view) == {}
    seen = {(i["name"], i["channel"]): (i["expected"], i["actual"], i["tolerance"], i["unit"]) for i in view["items"]}
    assert seen == {
        ("recharge_total", "alipay"): ("200.00", "200.00", "0", "amount"),
        ("consumption_total", "alipay"): ("30.00", "30.00", "0", "amount"),
        ("consumption_total", None): ("21.00", "21.00", "0", "amount"),
        ("large_changes", None): ("0", "0", "0", "count"),
        ("refunds_complete", "alipay"): ("10.00", "10.00", "0", "amount"),
    }
    alipay, none = sorted(view["figures"], key=lambda item: item["channel"] or "", reverse=True)
    assert alipay == {
        "currency": "CNY", "channel": "alipay", "recharge": "200.00", "withdrawal": "0", "consumption": "30.00",
        "refund": "10.00", "fees": "0", "balance_change": "180.00", "entries": 3,
    }  # fmt: skip
    assert (none["consumption"], none["balance_change"], none["entries"]) == ("21.00", "-21.00", 2)
    assert [failing(daily(session, DAY + timedelta(days=off))) for off in (-1, 1)] == [{}, {}]


def _lose_a_record(session: Session) -> None:
    session.execute(sa.text("delete from upstream_records where upstream_ref = 'u-r-1'"))


def _hear_of_a_strange_payment(session: Session) -> None:
    add_record(session, "u-strange", "nowhere", at=NOON, amount=500)


def _consume_without_an_order(session: Session) -> None:
    result_of(post_all(session, single(change(type=323, amount="-7.00", order_no="lost", channel="alipay")))[0])


def _change_an_order(session: Session) -> None:
    session.execute(sa.text("update orders set amount = amount + 5 where order_no = 'p-1'"))


def _refund_without_an_order(session: Session) -> None:
    result_of(post_all(session, single(change(type=324, amount="3.00", order_no="lost", channel="alipay")))[0])


def _forget_a_refund(session: Session) -> None:
    session.execute(sa.text("update orders set refunded = 999 where order_no = 'p-1'"))


def _reward_much(session: Session) -> None:
    result_of(post_all(session, single(change(type=325, amount="10000.00", order_no=None)))[0])


@pytest.mark.parametrize(
    ("harm", "check", "difference", "order_no"),
    [
        (_lose_a_record, "recharge_total", "200.00", "r-1"),
        (_hear_of_a_strange_payment, "recharge_total", "-5.00", "nowhere"),
        (_consume_without_an_order, "consumption_total", "7.00", "lost"),
        (_change_an_order, "consumption_total", "-0.05", "p-1"),
        (_refund_without_an_order, "refunds_complete", "3.00", "lost"),
        (_forget_a_refund, "refunds_complete", "0.01", "p-1"),
        (_reward_much, "large_changes", "1", None),
    ],
)
def test_each_harm_is_seen_by_its_check_and_named_by_the_row_behind(
    session: Session, harm: Callable[[Session], None], check: str, difference: str, order_no: str | None
) -> None:
    a_good_day(session)
    harm(session)
    assert failing(daily(session)) == {check: difference}
    [row] = rows(session, check)
    assert (row["order_no"], row["currency"]) == (order_no, "CNY")
    assert row["difference"] == ("10000.00" if check == "large_changes" else difference)
    assert (row["entry_id"] is not None) == (check == "large_changes")


def test_what_is_settled_about_midnight_is_compared_with_its_record_of_the_other_day(session: Session) -> None:
    midnight, _ = day_bounds(DAY, "Asia/Shanghai")
    turn_clock(session, midnight + timedelta(milliseconds=5))
    create(session, order_no="r-1", kind="recharge", amount="10.00")
    settle(session, "r-1")
    add_record(session, "u-1", "r-1", at=midnight - timedelta(seconds=1))
    days = [daily(session, DAY + timedelta(days=off), zone_name="Asia/Shanghai") for off in (-1, 0)]
    assert [failing(view) for view in days] == [{}, {}]
    assert days[0]["figures"] == []
    assert days[1]["figures"][0]["recharge"] == "10.00"


def test_rows_behind_a_check_come_in_pages_and_sum_to_it(session: Session) -> None:
    turn_clock(session, NOON)
    for number in range(7):
        create(session, order_no=f"r-{number}", kind="recharge", amount="10.00")
        settle(session, f"r-{number}")
    add_record(session, "u-3", "r-3", at=NOON)
    seen, cursor = [], None
    while True:
        shown = page(session, currency="CNY", channel="alipay", limit=2, cursor=cursor)
        seen += [row["order_no"] for row in shown["items"]]
        cursor = shown["next_cursor"]
        if cursor is None:
            break
    assert seen == ["r-0", "r-1", "r-2", "r-4", "r-5", "r-6"]
    assert failing(daily(session)) == {"recharge_total": "60.00"}
    assert len(rows(session, "recharge_total", is_all=True)) == 7
    assert rows(session, "recharge_total", channel="wechat") == rows(session, "recharge_total", currency="USD") == []


def test_rows_behind_a_check_of_no_channel_are_of_none_and_sum_to_it(session: Session) -> None:
    turn_clock(session, NOON)
    for order_no, channel in (("r-1", "alipay"), ("r-2", None), ("r-3", None)):
        create(session, order_no=order_no, kind="recharge", amount="10.00", channel=channel)
        settle(session, order_no)
    differences = {check["channel"]: check["difference"] for check in daily(session)["items"] if not check["ok"]}
    assert differences == {"alipay": "10.00", None: "20.00"}
    assert [row["order_no"] for row in rows(session, "recharge_total", channel="")] == ["r-2", "r-3"]
    assert [row["order_no"] for row in rows(session, "recharge_total")] == ["r-1", "r-2", "r-3"]


def test_a_record_whose_reference_is_the_number_of_an_order_is_a_row_of_its_own(session: Session) -> None:
    turn_clock(session, NOON)
    create(session, order_no="r-1", kind="recharge", amount="10.00")
    settle(session, "r-1")
    add_record(session, "r-1", None, at=NOON, amount=300)
    first = page(session, limit=1)
    second = page(session, limit=1, cursor=first["next_cursor"])
    shown = [(row["order_no"], row["upstream_ref"], row["difference"]) for row in first["items"] + second["items"]]
    assert shown == [("r-1", None, "10.00"), (None, "r-1", "-3.00")]
    assert second["next_cursor"] is None


def test_all_four_checks_are_there_for_a_currency_that_only_the_platform_names(session: Session) -> None:
    add_record(session, "u-strange", "nowhere", at=NOON, currency="USD")
    assert [(item["name"], item["currency"], item["channel"], item["ok"]) for item in daily(session)["items"]] == [
        ("recharge_total", "USD", "alipay", False),
        ("consumption_total", "USD", None, True),
        ("large_changes", "USD", None, True),
        ("refunds_complete", "USD", None, True),
    ]
    assert daily(session, DAY + timedelta(days=1))["items"] == []


def test_checks_figures_and_rows_are_cut_to_the_callers_merchants(
    session: Session, bob: Passport, charlie: Passport
) -> None:
    a_good_day(session)
    recharge(session, "theirs", "70.00", merchant_id=BOREALIS)
    add_record(session, "u-strange", "nowhere", at=NOON, amount=500)
    _lose_a_record(session)
    assert failing(daily(session, passport=bob)) == {"recharge_total": "200.00"}
    assert [row["order_no"] for row in rows(session, "recharge_total", passport=bob)] == ["r-1"]
    view = daily(session, passport=charlie)
    assert failing(view) == {}
    assert [item["balance_change"] for item in view["figures"]] == ["70.00"]
    assert [row["order_no"] for row in rows(session, "recharge_total", passport=charlie, is_all=True)] == ["theirs"]
    assert [item["recharge"] for item in monthly(session, passport=charlie)["items"]] == ["70.00"]
    assert [item["recharge"] for item in monthly(session)["items"] if item["channel"]] == ["270.00"]


def correct(session: Session, order_no: str, amount: str, *, bucket: str, day: date, number: int = 1) -> None:
    """Post a correction's entry as it is posted, and say what it counts for."""
    posting = single(change(type=326, amount=amount, order_no=order_no, channel="alipay", reason="Corrected."))
    result_of(post_all(session, posting)[0])
    if number == 1:
        reconcile(session, DAY, grace_seconds=0)
    at = clock(session)
    session.execute(
        sa.text(
            "insert into mismatches (id, channel, day, kind, order_no, currency, difference, found_by, seen_by)"
            " select :id, 'alipay', :day, 'amount_mismatch', :id, 'CNY', 1, id, id from reconciliations limit 1"
        ),
        {"id": f"mis_{number}", "day": DAY},
    )
    session.execute(
        sa.text(
            "insert into corrections (id, mismatch_id, direction, content, content_sha256, status, reason,"
            " proposed_by, proposed_by_name, applied_at)"
            " values (:id, :mis, 'upstream', '{}', '', 'applied', 'x', 'u', 'U', :at)"
        ),
        {"id": f"cor_{number}", "mis": f"mis_{number}", "at": at},
    )
    session.execute(
        sa.text(
            "insert into correction_entries (correction_id, account_id, version, order_no, merchant_id, channel,"
            " bucket, day, amount, currency, type, posted_at)"
            " select :id, account_id, version, order_no, merchant_id, channel, :bucket, :day, amount, currency, type,"
            " created_at"
            " from entries order by created_at desc limit 1"
        ),
        {"id": f"cor_{number}", "bucket": bucket, "day": day},
    )
    session.execute(sa.text("update mismatches set status = 'corrected'"))


def test_a_correction_counts_on_the_day_that_it_corrects_and_its_money_when_it_moves(session: Session) -> None:
    a_good_day(session)
    session.execute(sa.text("update upstream_records set amount = 21000 where upstream_ref = 'u-r-1'"))
    assert failing(daily(session)) == {"recharge_total": "-10.00"}
    turn_clock(session, NOON + timedelta(days=3))
    correct(session, "r-1", "10.00", bucket="recharge", day=DAY)
    assert failing(daily(session)) == {}
    assert rows(session, "recharge_total") == []
    [corrected] = daily(session, DAY + timedelta(days=3))["figures"]
    assert (corrected["recharge"], corrected["balance_change"], corrected["entries"]) == ("0", "10.00", 1)
    assert failing(daily(session, DAY + timedelta(days=3))) == {}
    [alipay] = [item for item in daily(session)["figures"] if item["channel"]]
    assert (alipay["recharge"], alipay["balance_change"]) == ("210.00", "180.00")


@pytest.mark.parametrize("zone_name", ["UTC", "Asia/Kathmandu", "America/New_York"])
def test_figures_are_the_sums_of_the_entries_of_their_days(session: Session, zone_name: str) -> None:
    rng = random.Random(zone_name)
    starts_at, ends_at = day_bounds(date(2026, 11, 1), zone_name)  # of 25 hours in New York
    turn_clock(session, starts_at - timedelta(days=1))
    fund(session, "100000.00", channel="alipay")
    edges = [starts_at, ends_at, starts_at + timedelta(hours=5)]
    instants = [edge + timedelta(seconds=rng.randint(-4000, 4000)) for edge in edges for _ in range(12)]
    for number, at in enumerate(sorted(instants)):
        turn_clock(session, at)
        code = rng.choice([321, 322, 323, 325, 331, 333, 341])
        amount = f"{'-' if code in (322, 323, 331) else ''}{rng.randint(1, 99)}.00"
        kind: dict[str, Any] = {"order_no": None, "reason": "x"} if code in (325, 341) else {"order_no": f"n-{number}"}
        posted = change(type=code, amount=amount, channel=rng.choice(["alipay", "wechat", None]), **kind)
        result_of(post_all(session, single(posted))[0])
        if number == len(instants) // 2:
            sums.fold_deltas(session)
    for day in (date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 2)):
        bounds = dict(zip(("starts_at", "ends_at"), day_bounds(day, zone_name), strict=True))
        query = sa.text(
            "select channel, type, amount from entries where created_at >= :starts_at and created_at < :ends_at"
        )
        found: dict[str | None, list[Any]] = {}
        for row in session.execute(query, bounds):
            found.setdefault(row.channel, []).append(row)
        view = daily(session, day, zone_name=zone_name)
        assert {item["channel"] for item in view["figures"]} == found.keys()
        for item in view["figures"]:
            mine = found[item["channel"]]
            for name, sign in (("recharge", 1), ("consumption", -1), ("withdrawal", -1), ("refund", 1)):
                expected = sum(sign * row.amount for row in mine if row.type in BUCKETS[name])
                assert Decimal(item[name]) * 100 == expected  # type: ignore[literal-required]
            assert Decimal(item["balance_change"]) * 100 == sum(row.amount for row in mine)
            assert item["entries"] == len(mine)


@pytest.mark.parametrize("zone_name", ["UTC", "Asia/Kathmandu", "America/New_York"])
def test_what_has_left_for_an_archive_keeps_its_figures_and_has_no_checks(session: Session, zone_name: str) -> None:
    starts_at, _ = day_bounds(DAY, zone_name)
    turn_clock(session, starts_at - timedelta(hours=1))
    fund(session, "100.00", order_no="before", channel="alipay")
    for minutes in (-20, -1, 0, 14, 16, 44, 46, 59, 61, 1380, 1396, 1424, 1426, 1439, 1440, 1460):
        turn_clock(session, starts_at + timedelta(minutes=minutes, milliseconds=10))
        result_of(post_all(session, single(change(type=232, amount="-1.00", order_no=None)))[0])
    days = [DAY + timedelta(days=off) for off in (-1, 0, 1)]
    close(session, days[0], zone_name=zone_name)
    close(session, DAY, zone_name=zone_name)
    before = [daily(session, day, zone_name=zone_name) for day in days]
    month = read_monthly_figures(session, ALICE, first=date(2026, 10, 1), zone_name=zone_name)
    assert [view["is_archived"] for view in before] == [False] * 3
    session.execute(sa.text("set local search_path = public"))
    archive_entries(session, month=date(2026, 10, 1), reason="old", actor_id="usr_alice", actor_name="Alice")
    after = [daily(session, day, zone_name=zone_name) for day in days]
    left: dict[str, Any] = {"is_archived": True, "items": []}
    assert after == [{**view, **left} for view in before]
    assert read_monthly_figures(session, ALICE, first=date(2026, 10, 1), zone_name=zone_name) == month
    with pytest.raises(DayArchived):
        rows(session, "consumption_total", zone_name=zone_name)
    edge = daily(session, date(2026, 11, 1), zone_name=zone_name)
    assert edge["is_archived"] == (zone_name == "Asia/Kathmandu")  # it begins on the 31st in UTC


def close(session: Session, day: date = DAY, *, force: bool = False, zone_name: str = "UTC", **who: Any) -> Any:
    return close_day(
        session, who.get("passport", ALICE), day=day, reason="Books are done.", is_forced=force, zone_name=zone_name
    )


def test_a_closed_day_is_sealed_and_what_comes_later_stands_apart(session: Session) -> None:
    a_good_day(session)
    reconcile(session, DAY)
    before = daily(session)
    closed = close(session)
    assert (closed["date"], closed["previous_digest"], len(closed["digest"])) == ("2026-10-20", None, 64)
    assert (daily(session)["figures"], daily(session)["after_close"]) == (before["figures"], [])
    turn_clock(session, NOON + timedelta(days=3))
    correct(session, "r-1", "10.00", bucket="recharge", day=DAY)
    view = daily(session)
    assert view["closed_at"] == closed["closed_at"]
    assert view["figures"] == before["figures"]
    [after] = view["after_close"]
    assert (after["channel"], after["recharge"], after["balance_change"], after["entries"]) == (
        "alipay",
        "10.00",
        "0",
        0,
    )
    month = monthly(session)
    assert [item["recharge"] for item in month["after_close"]] == ["10.00"]
    assert [item["recharge"] for item in month["items"] if item["channel"]] == ["200.00"]
    assert events(session).count("DayClosed") == 1
    assert list_closed_days(session, limit=5, cursor=None)["items"] == [closed]


def test_a_month_is_the_sum_of_its_sealed_days(session: Session) -> None:
    rng, first = random.Random(4), date(2026, 10, 1)
    for offset in range(31):
        turn_clock(session, datetime(2026, 10, 1, 9, tzinfo=UTC) + timedelta(days=offset))
        recharge(session, f"r-{offset}", f"{rng.randint(50, 90)}.00", channel=rng.choice(["alipay", "wechat"]))
        create(session, order_no=f"p-{offset}", kind="payment", amount=f"{rng.randint(1, 9)}.00")
        settle(session, f"p-{offset}")
    open_month = monthly(session)
    for offset in range(31):
        day = first + timedelta(days=offset)
        close(session, day, force=True)
        if offset == 10:  # a figure of an open day moves under nobody's seal
            assert monthly(session)["items"] == open_month["items"]
    month = monthly(session)
    assert (month["is_closed"], month["items"], month["after_close"]) == (True, open_month["items"], [])
    assert [(day["date"], day["is_closed"]) for day in month["days"]] == [
        ((first + timedelta(days=offset)).isoformat(), True) for offset in range(31)
    ]
    for item in month["items"]:
        parts = [part for day in month["days"] for part in day["items"] if part["channel"] == item["channel"]]
        for name in ("recharge", "consumption", "balance_change"):
            assert Decimal(item[name]) == sum(Decimal(part[name]) for part in parts)  # type: ignore[literal-required]


def test_days_are_closed_when_they_are_over_one_after_the_other_and_once(session: Session, bob: Passport) -> None:
    with pytest.raises(PermissionDenied):
        close(session, passport=bob)
    with pytest.raises(DayNotOver):
        close(session, utc_now().date())
    first = close(session)
    with pytest.raises(DayAlreadyClosed):
        close(session)
    with pytest.raises(DayAlreadyClosed):
        close(session, DAY - timedelta(days=1))
    with pytest.raises(DayOutOfOrder) as refusal:
        close(session, DAY + timedelta(days=2))
    assert refusal.value.extra["next_date"] == "2026-10-21"
    second = close(session, DAY + timedelta(days=1))
    assert second["previous_digest"] == first["digest"]


def test_a_day_with_something_open_is_closed_only_by_force(session: Session) -> None:
    add_order(session, "alone", at=NOON)
    with pytest.raises(DayNotReady) as refusal:
        close(session)
    assert refusal.value.extra == {"open_mismatches": 0, "channels_open": ["alipay"]}
    reconcile(session, DAY)
    with pytest.raises(DayNotReady) as refusal:
        close(session)
    assert refusal.value.extra == {"open_mismatches": 1, "channels_open": []}
    assert close(session, force=True)["date"] == "2026-10-20"


def test_a_day_of_which_something_may_still_come_right_is_closed_only_by_force(session: Session) -> None:
    add_order(session, "alone", at=NOON)
    midnight = NOON + timedelta(hours=12)
    assert reconcile(session, DAY, grace_seconds=86400, judged_at=midnight)["expected"] == 1
    with pytest.raises(DayNotReady) as refusal:
        close(session)
    assert refusal.value.extra == {"open_mismatches": 0, "channels_open": ["alipay"]}
    add_record(session, "u-alone", "alone", at=NOON)
    reconcile(session, DAY, grace_seconds=86400, judged_at=midnight)
    assert close(session)["date"] == "2026-10-20"


@pytest.mark.parametrize(
    ("said", "is_open"),
    [
        ({}, True),
        ({"first_occurred_at": NOON + timedelta(hours=12)}, False),
        ({"last_occurred_at": NOON - timedelta(hours=13)}, False),
        ({"rows_new": 0, "rows_changed": 1}, True),
        ({"rows_new": 0}, False),
        ({"finished_at": NOON}, False),
        ({"channel": "wechat"}, False),
        ({"status": "refused"}, False),
    ],
)
def test_a_statement_that_came_in_after_the_last_run_is_reconciled_before_its_day_is_closed(
    session: Session, said: dict[str, Any], is_open: bool
) -> None:
    add_channel(session, "wechat")
    a_good_day(session)
    reconcile(session, DAY)
    values = {
        "channel": "alipay",
        "status": "imported",
        "rows_new": 1,
        "rows_changed": 0,
        "first_occurred_at": NOON - timedelta(days=1),
        "last_occurred_at": NOON + timedelta(days=1),
        "finished_at": utc_now(),
    } | said
    session.execute(
        sa.text(
            "insert into statements (id, format, sha256, chunks, actor_id, actor_name, actor_type, request_id, channel,"
            " status, rows_new, rows_changed, first_occurred_at, last_occurred_at, finished_at) values ('stm_1', 'csv',"
            " 'x', 1, 'u', 'U', 'user', 'r', :channel, :status, :rows_new, :rows_changed, :first_occurred_at,"
            " :last_occurred_at, :finished_at)"
        ),
        values,
    )
    if is_open:
        with pytest.raises(DayNotReady) as refusal:
            close(session)
        assert refusal.value.extra == {"open_mismatches": 0, "channels_open": ["alipay"]}
        reconcile(session, DAY)
    assert close(session)["date"] == "2026-10-20"


def test_nothing_falls_between_days_that_are_closed_in_two_time_zones(session: Session) -> None:
    first = close(session, zone_name="UTC")
    turn_clock(session, datetime(2026, 10, 20, 20, tzinfo=UTC))  # the 20th here, the 21st there
    second = close(session, DAY + timedelta(days=1), zone_name="Asia/Shanghai")
    assert second["starts_at"] == first["ends_at"]
    assert second["ends_at"] == "2026-10-21T16:00:00Z"
    third = daily(session, DAY + timedelta(days=2), zone_name="UTC")
    assert third["closed_at"] is None


@pytest.mark.parametrize(
    ("before", "after"),
    [("UTC", "America/New_York"), ("UTC", "Asia/Shanghai"), ("Asia/Shanghai", "UTC"), ("Asia/Kathmandu", "UTC")],
)
def test_what_happens_about_a_change_of_the_zone_is_reconciled_and_counted_on_one_day(
    session: Session, before: str, after: str
) -> None:
    first, last = DAY, DAY + timedelta(days=1)
    days = [DAY + timedelta(days=off) for off in range(-2, 5)]
    starts_at, _ = day_bounds(first, before)
    instants = [starts_at + timedelta(hours=hour, minutes=7) for hour in range(-30, 78, 3)]
    for number, at in enumerate(instants):
        turn_clock(session, at)
        create(session, order_no=f"r-{number}", kind="recharge", amount="1.00")
        settle(session, f"r-{number}")
    for day in (first, last):
        close(session, day, force=True, zone_name=before)
    runs = [reconcile(session, day, zone_name=after) for day in days]
    assert sum(run["orders"] for run in runs) == len(instants)
    assert [run["timezone"] for run in runs] == [after] * 2 + [before] * 2 + [after] * 3
    assert len(open_ones(session)) == len(instants)
    views = [daily(session, day, zone_name=after) for day in days]
    recharged = [Decimal(view["figures"][0]["recharge"]) if view["figures"] else Decimal(0) for view in views]
    assert recharged == [run["orders"] for run in runs]
    assert [view["after_close"] for view in views] == [[]] * len(days)
    assert [failing(view).get("recharge_total", "0.00") for view in views] == [f"{run['orders']}.00" for run in runs]
    assert [len(rows(session, "recharge_total", day, zone_name=after)) for day in days] == [r["orders"] for r in runs]


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (datetime(2026, 10, 20, 3, tzinfo=UTC), DAY),  # the 19th in New York
        (datetime(2026, 10, 21, 3, tzinfo=UTC), DAY + timedelta(days=1)),  # the 20th there, which is closed and over
        (datetime(2026, 10, 22, 3, tzinfo=UTC), DAY + timedelta(days=1)),
        (datetime(2026, 10, 19, 23, tzinfo=UTC), DAY - timedelta(days=1)),
    ],
)
def test_a_correction_counts_on_the_day_of_the_books_also_after_a_change_of_the_zone(
    session: Session, at: datetime, day: date
) -> None:
    turn_clock(session, at)
    recharge(session, "r-1", "10.00")
    close(session, force=True)
    session.execute(sa.text("update upstream_records set amount = 1500"))
    zone_name = "America/New_York"
    reconcile(session, day, zone_name=zone_name)
    assert failing(daily(session, day, zone_name=zone_name)) == {"recharge_total": "-5.00"}
    [mismatch] = found(session, "open")
    turn_clock(session, NOON + timedelta(days=9))
    correct_mismatch(session, mismatch["id"], terms=replace(TERMS, zone_name=zone_name))
    for near in (day - timedelta(days=1), day, day + timedelta(days=1)):
        assert failing(daily(session, near, zone_name=zone_name)) == {}


def test_a_day_has_begun_where_the_last_closed_one_ended(session: Session) -> None:
    now, day = utc_now(), utc_now().date()
    sealed = {"day": day, "starts_at": now - timedelta(days=1), "ends_at": now - timedelta(minutes=1)}
    session.execute(
        sa.text(
            "insert into closed_days (day, zone_name, starts_at, ends_at, totals, digest, reason, actor_id, actor_name,"
            " request_id) values (:day, 'Asia/Shanghai', :starts_at, :ends_at, '[]', '', 'x', 'u', 'U', 'r')"
        ),
        sealed,
    )
    add_order(session, "now", at=now)
    assert reconcile(session, day + timedelta(days=1))["orders"] == 1
    with pytest.raises(DayNotBegun):
        reconcile(session, day + timedelta(days=2))


@pytest.mark.parametrize(
    "harm",
    [
        "update closed_days set totals = jsonb_set(totals, '{0,5}', '1') where day = '2026-10-20'",
        "update closed_days set reason = 'Another.' where day = '2026-10-21'",
        "update closed_days set actor_name = 'Mallory' where day = '2026-10-22'",
        "delete from closed_days where day = '2026-10-21'",
        "update closed_days set previous_digest = null where day = '2026-10-22'",
    ],
)
def test_a_sealed_row_that_was_touched_is_found_by_the_proof(session: Session, harm: str) -> None:
    a_good_day(session)
    for offset in range(3):
        close(session, DAY + timedelta(days=offset), force=True)
    assert prove(session, mode="full")["faults"] == []
    session.execute(sa.text(harm))
    faults = prove(session, mode="full")["faults"]
    assert {fault["kind"] for fault in faults} == {"closed_day"}
