"""Changing a parameter, going back, and who is told."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.settings import queries, usecases
from shared.contracts.settings import (
    InvalidParameterValue,
    ParameterNotFound,
    ParameterVersionNotFound,
    StaleVersion,
)
from shared.paging import InvalidCursor
from shared.passport import Passport

THRESHOLD = "ledger.large_change_threshold"


@pytest.fixture
def session(session_of: Callable[[str], Session]) -> Session:
    return session_of("settings")


def change(session: Session, passport: Passport, value: Any, *, expected_version: int, key: str = THRESHOLD) -> Any:
    return usecases.change_parameter(
        session, passport, key=key, value=value, reason="Busy season", expected_version=expected_version
    )


def events(session: Session) -> list[dict[str, Any]]:
    return [orjson.loads(e) for e in session.scalars(sa.text("select envelope from outbox order by id"))]


def test_parameter_that_nobody_changed_has_its_default_as_version_0(session: Session) -> None:
    view = queries.get_parameter(session, key=THRESHOLD)
    assert (view["value"], view["version"], view["updated_by"]) == ("10000.00", 0, None)
    assert view["affects"] == ["ledger", "telegram"]
    assert view["bounds"] == {"minimum": "0.01", "maximum": "1000000000000.00"}


def test_change_is_in_force_at_once_and_tells_who_did_it(session: Session, alice: Passport) -> None:
    view = change(session, alice, "500.00", expected_version=0)
    assert (view["value"], view["version"], view["updated_by"]) == ("500.00", 1, "Alice")
    assert queries.get_parameter(session, key=THRESHOLD) == view
    listed = {item["key"]: item for item in queries.list_parameters(session)["items"]}
    assert listed[THRESHOLD] == view
    assert listed["system.timezone"]["version"] == 0


def test_change_tells_whom_it_reaches_what_was_and_why(session: Session, alice: Passport) -> None:
    change(session, alice, "500.00", expected_version=0)
    (event,) = events(session)
    assert (event["event"], event["resource_type"], event["resource_id"]) == (
        "ParameterChanged",
        "parameter",
        THRESHOLD,
    )
    assert event["payload"] == {
        "key": THRESHOLD,
        "value": "500.00",
        "version": 1,
        "affects": ["ledger", "telegram"],
        "changes": {"value": {"before": "10000.00", "after": "500.00"}},
        "reason": "Busy season",
    }


def test_change_against_an_older_version_is_stale(session: Session, alice: Passport) -> None:
    change(session, alice, "500.00", expected_version=0)
    with pytest.raises(StaleVersion) as refusal:
        change(session, alice, "700.00", expected_version=0)
    assert refusal.value.extra == {"version": 1}
    assert queries.get_parameter(session, key=THRESHOLD)["value"] == "500.00"


def test_change_to_what_is_in_force_makes_no_version_and_no_event(session: Session, alice: Passport) -> None:
    view = change(session, alice, "10000.00", expected_version=0)
    assert view["version"] == 0
    assert events(session) == []


def test_invalid_value_is_refused_before_a_stale_version(session: Session, alice: Passport) -> None:
    with pytest.raises(InvalidParameterValue):
        change(session, alice, "0.00", expected_version=99)
    with pytest.raises(ParameterNotFound):
        change(session, alice, "1", expected_version=0, key="no.such_key")


def test_history_holds_every_version_newest_first_down_to_the_default(session: Session, alice: Passport) -> None:
    for version, value in enumerate(("1.00", "2.00", "3.00")):
        change(session, alice, value, expected_version=version)
    first = queries.list_parameter_versions(session, key=THRESHOLD, limit=2, cursor=None)
    second = queries.list_parameter_versions(session, key=THRESHOLD, limit=2, cursor=first["next_cursor"])
    seen = [(i["version"], i["previous_value"], i["value"]) for i in first["items"] + second["items"]]
    assert seen == [(3, "2.00", "3.00"), (2, "1.00", "2.00"), (1, "10000.00", "1.00"), (0, None, "10000.00")]
    assert {i["reason"] for i in first["items"]} == {"Busy season"}
    assert second["next_cursor"] is None


def test_cursor_that_is_not_of_this_list_is_refused(session: Session) -> None:
    with pytest.raises(InvalidCursor):
        queries.list_parameter_versions(session, key=THRESHOLD, limit=2, cursor="WyJ4Il0")


def test_roll_back_is_a_new_version_with_the_old_value(session: Session, alice: Passport) -> None:
    change(session, alice, "1.00", expected_version=0)
    change(session, alice, "2.00", expected_version=1)
    view = usecases.roll_back_parameter(session, alice, key=THRESHOLD, version=1, reason="Too low")
    assert (view["value"], view["version"]) == ("1.00", 3)
    assert events(session)[-1]["payload"]["changes"] == {"value": {"before": "2.00", "after": "1.00"}}
    back = usecases.roll_back_parameter(session, alice, key=THRESHOLD, version=0, reason="As it was")
    assert (back["value"], back["version"]) == ("10000.00", 4)


def test_roll_back_to_a_version_that_never_was_is_refused(session: Session, alice: Passport) -> None:
    with pytest.raises(ParameterVersionNotFound):
        usecases.roll_back_parameter(session, alice, key=THRESHOLD, version=7, reason="?")


def test_preview_says_what_a_change_would_reach_and_changes_nothing(session: Session) -> None:
    good = queries.preview_parameter(session, key=THRESHOLD, value="5.00")
    assert (good["is_valid"], good["is_change"], good["affects"]) == (True, True, ["ledger", "telegram"])
    bad = queries.preview_parameter(session, key=THRESHOLD, value=5)
    assert (bad["is_valid"], bad["is_change"], bad["affects"]) == (False, False, [])
    assert bad["errors"] == ['Must be a decimal string such as "10000.00".']
    assert queries.get_parameter(session, key=THRESHOLD)["version"] == 0


def test_pages_of_parameters_follow_their_keys(session: Session) -> None:
    first = queries.list_parameters(session, limit=1)
    rest = queries.list_parameters(session, cursor=first["next_cursor"])
    keys = [item["key"] for item in first["items"] + rest["items"]]
    assert keys == sorted(keys)
    assert keys == [item["key"] for item in queries.list_parameters(session)["items"]]


@pytest.fixture
def committed(engine_of: Callable[[str], sa.Engine]) -> Iterator[sa.Engine]:
    """Give an engine to commit with, and take back what was committed."""
    engine = engine_of("settings")
    yield engine
    with engine.begin() as connection:
        connection.execute(sa.text("truncate parameter_versions, outbox"))


def test_of_two_who_saw_the_same_version_one_is_stale(committed: sa.Engine, alice: Passport) -> None:
    both = threading.Barrier(2)

    def try_to_change(value: str) -> str:
        with Session(committed) as session:
            queries.get_parameter(session, key=THRESHOLD)
            both.wait()
            try:
                change(session, alice, value, expected_version=0)
                session.commit()
            except StaleVersion:
                return "stale"
            return "changed"

    with ThreadPoolExecutor(2) as threads:
        contexts = [copy_context(), copy_context()]
        rivals = [
            threads.submit(context.run, try_to_change, value)
            for context, value in zip(contexts, ("1.00", "2.00"), strict=True)
        ]
    assert sorted(rival.result() for rival in rivals) == ["changed", "stale"]


def test_second_of_two_concurrent_changes_waits_and_is_stale(committed: sa.Engine, alice: Passport) -> None:
    with Session(committed) as first, ThreadPoolExecutor(1) as thread:
        change(first, alice, "1.00", expected_version=0)

        def change_too() -> None:
            with Session(committed) as second:
                change(second, alice, "2.00", expected_version=0)

        rival = thread.submit(copy_context().run, change_too)
        time.sleep(0.2)
        assert not rival.done(), "it waits for the first to end"
        first.commit()
        with pytest.raises(StaleVersion):
            rival.result()
