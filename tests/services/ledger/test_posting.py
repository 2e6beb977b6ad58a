"""Posting on a real PostgreSQL: entries, refusals, keys, events."""

from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.thresholds import Threshold
from services.ledger.posting import post
from shared.contracts.ledger import BalanceTooLarge, InsufficientBalance
from shared.contracts.users import MerchantNotFound
from shared.errors import IdempotencyInProgress, IdempotencyKeyReused, ServiceError
from shared.passport import Passport
from shared.rpc.wire import Answer
from tests.conftest import AURORA, BOREALIS
from tests.services.ledger.conftest import batch, change, post_all, result_of, single


def rows(session: Session, statement: str) -> list[Any]:
    return list(session.execute(sa.text(statement)).all())


def events(session: Session) -> list[dict[str, Any]]:
    return [orjson.loads(row.envelope) for row in rows(session, "select envelope from outbox order by id")]


def test_first_change_opens_the_account(session: Session) -> None:
    entry = result_of(post_all(session, single(change(amount="12.50", user_id="new-user")))[0])
    assert (entry["amount"], entry["balance"], entry["version"]) == ("12.50", "12.50", 1)
    assert rows(session, "select holder_type, holder_id, balance, version from accounts") == [
        ("user", "new-user", 1250, 1)
    ]


def test_refused_first_change_opens_nothing(session: Session) -> None:
    [outcome] = post_all(session, single(change(type=323, amount="-1.00")))
    assert isinstance(outcome, InsufficientBalance)
    assert rows(session, "select 1 from accounts") == []
    assert events(session) == []


def test_same_user_of_two_merchants_has_two_accounts(session: Session) -> None:
    post_all(session, single(change(merchant_id=AURORA)), single(change(merchant_id=BOREALIS, amount="1.00")))
    found = rows(session, "select merchant_id, balance from accounts order by merchant_id")
    assert found == [(AURORA, 10_000), (BOREALIS, 100)]


def test_one_account_a_currency(session: Session) -> None:
    changes = [change(currency="CNY"), change(currency="USDT", amount="0.000001"), change(currency="JPY", amount="7")]
    view = result_of(post_all(session, batch(changes))[0])
    assert [item["entry"]["balance"] for item in view["items"]] == ["100.00", "0.000001", "7"]


def test_entry_row_has_both_legs_and_who_made_it(session: Session, alice: Passport) -> None:
    made = change(amount="12.50", order_no="P-1", note='first, \\N "quoted" 中文', channel="alipay", reason="why")
    post_all(session, single(made, passport=alice, request_id="req_7"))
    [row] = rows(
        session,
        "select type, counter_account, amount, balance_before, balance_after, order_no, channel, note, reason,"
        " actor_id, actor_name, actor_type, request_id, merchant_id, holder_type, holder_id, currency from entries",
    )
    assert tuple(row) == (
        *(321, "channel_clearing:alipay", 1250, 0, 1250, "P-1", "alipay", made.note, "why"),
        *("usr_alice", "Alice", "user", "req_7", AURORA, "user", "user-1", "CNY"),
    )


def test_memo_entry_moves_nothing_and_has_no_counter_account(session: Session) -> None:
    post_all(session, single(change(type=231, amount="0", order_no=None)))
    assert rows(session, "select amount, counter_account from entries") == [(0, None)]


def test_changes_of_one_account_in_one_statement_build_on_each_other(session: Session) -> None:
    outcomes = post_all(
        session,
        single(change(amount="5.00")),
        single(change(type=323, amount="-6.00")),
        single(change(type=323, amount="-5.00")),
        single(change(type=323, amount="-0.01")),
        single(change(amount="1.00")),
    )
    balances = [outcome.result["balance"] if isinstance(outcome, Answer) else outcome.code for outcome in outcomes]
    assert balances == ["5.00", "insufficient_balance", "0", "insufficient_balance", "1.00"]
    assert rows(session, "select version, balance_after from entries order by version") == [(1, 500), (2, 0), (3, 100)]
    assert rows(session, "select balance, version from accounts") == [(100, 3)]


def test_changes_of_later_statements_build_on_earlier_ones(session: Session) -> None:
    post_all(session, single(change(amount="5.00")))
    entry = result_of(post_all(session, single(change(type=323, amount="-2.00")))[0])
    assert (entry["balance"], entry["version"]) == ("3.00", 2)


def test_held_money_is_not_spent(session: Session) -> None:
    post_all(session, single(change(amount="5.00")))
    session.execute(sa.text("update accounts set held = 400"))
    refused, posted = post_all(
        session, single(change(type=323, amount="-1.01")), single(change(type=323, amount="-1.00"))
    )
    assert isinstance(refused, InsufficientBalance)
    assert result_of(posted)["balance"] == "4.00"


def test_balance_never_leaves_what_a_bigint_holds(session: Session) -> None:
    changes = [change(amount="1000000000000000.00") for _ in range(11)]
    view = result_of(post_all(session, batch(changes, is_atomic=False))[0])
    assert [item["error"]["code"] for item in view["items"] if "error" in item] == [BalanceTooLarge.code]


def test_batch_answers_in_order_and_each_change_stands_for_itself(session: Session) -> None:
    changes = [
        change(amount="1.00"),
        change(type=323, amount="-2.00"),
        MerchantNotFound(),
        change(type=323, amount="-1.00"),
    ]
    view = result_of(post_all(session, batch(changes, is_atomic=False))[0])
    codes = [item["error"]["code"] if "error" in item else item["entry"]["balance"] for item in view["items"]]
    assert codes == ["1.00", "insufficient_balance", "merchant_not_found", "0"]
    assert (view["posted"], view["refused"]) == (2, 2)


def test_atomic_batch_posts_all_or_nothing(session: Session) -> None:
    post_all(session, single(change(amount="1.00")))
    [outcome] = post_all(
        session,
        batch([change(amount="5.00"), change(user_id="other"), change(type=323, amount="-7.00"), change()]),
    )
    assert isinstance(outcome, InsufficientBalance)
    assert outcome.extra["index"] == 2
    assert rows(session, "select balance, version from accounts") == [(100, 1)]
    assert len(events(session)) == 1


def test_atomic_batch_that_fails_leaves_the_others_of_its_statement(session: Session) -> None:
    outcomes = post_all(
        session,
        single(change(amount="1.00")),
        batch([change(amount="5.00"), change(type=323, amount="-7.00")]),
        single(change(type=323, amount="-1.00")),
    )
    assert isinstance(outcomes[1], InsufficientBalance)
    assert result_of(outcomes[2])["balance"] == "0"
    assert rows(session, "select version, balance_after from entries order by version") == [(1, 100), (2, 0)]


def test_ten_thousand_changes_are_one_batch(session: Session) -> None:
    changes = [change(user_id=f"user-{n % 200}", amount="0.01") for n in range(10_000)]
    view = result_of(post_all(session, batch(changes))[0])
    assert view["posted"] == 10_000
    assert view["items"][9_999]["entry"]["balance"] == "0.50"
    assert rows(session, "select count(*), count(distinct created_at), sum(amount) from entries") == [
        (10_000, 10_000, 10_000)
    ]
    assert [len(e["payload"]["entries"]) for e in events(session)] == [500] * 20


def test_sums_follow_each_statement(session: Session) -> None:
    post_all(session, single(change(amount="5.00")), single(change(type=323, amount="-2.00")))
    post_all(session, single(change(type=231, amount="0", order_no=None)))
    found = rows(session, "select type, counter_account, entries, increase, decrease from posting_deltas order by type")
    assert found == [
        (231, None, 1, 0, 0),
        (321, "channel_clearing", 1, 500, 0),
        (323, "revenue:orders", 1, 0, -200),
    ]


def test_replay_answers_the_first_answer_and_posts_nothing(session: Session) -> None:
    made = change(amount="5.00")
    first = result_of(post_all(session, single(made, key="k-1"))[0])
    [again] = post_all(session, single(made, key="k-1"))
    assert isinstance(again, Answer)
    assert (again.result, again.is_replayed) == (first, True)
    assert rows(session, "select count(*) from entries") == [(1,)]


def test_refusal_is_kept_under_its_key(session: Session) -> None:
    spend = change(type=323, amount="-5.00")
    post_all(session, single(spend, key="k-1"))
    post_all(session, single(change(amount="9.00")))
    [again] = post_all(session, single(spend, key="k-1"))
    assert isinstance(again, InsufficientBalance)
    assert again.extra["is_replayed"] is True
    assert result_of(post_all(session, single(spend, key="k-2"))[0])["balance"] == "4.00"


def test_key_of_another_request_is_refused(session: Session) -> None:
    post_all(session, single(change(), key="k-1"))
    other = single(change(), key="k-1", amount="another body")
    assert isinstance(post_all(session, other)[0], IdempotencyKeyReused)


def test_same_key_of_another_caller_is_another_key(session: Session, alice: Passport, bob: Passport) -> None:
    outcomes = post_all(session, single(change(), key="k-1", passport=alice), single(change(), key="k-1", passport=bob))
    assert all(isinstance(outcome, Answer) for outcome in outcomes)


def test_same_key_twice_in_one_statement_is_in_progress(session: Session) -> None:
    made = change()
    first, second = post_all(session, single(made, key="k-1"), single(made, key="k-1"))
    assert isinstance(first, Answer)
    assert isinstance(second, IdempotencyInProgress)
    assert rows(session, "select count(*) from entries") == [(1,)]


def test_replay_of_a_batch_is_the_same_to_the_byte(session: Session) -> None:
    changes = [change(user_id=f"user-{n}") for n in range(20)]
    [first] = post_all(session, batch(changes, key="k-1"))
    [again] = post_all(session, batch(changes, key="k-1"))
    assert isinstance(first, Answer)
    assert isinstance(again, Answer)
    assert again.result == first.result
    assert len(result_of(again)["items"]) == 20


def test_event_tells_who_did_what(session: Session, bob: Passport) -> None:
    entry = result_of(post_all(session, single(change(), passport=bob, request_id="req_9"))[0])
    [event] = events(session)
    assert (event["service"], event["event"]) == ("ledger", "BalancesChanged")
    assert (event["actor"]["name"], event["request_id"]) == ("Bob", "req_9")
    assert (event["merchant_id"], event["resource_id"]) == (AURORA, entry["entry_id"])
    assert event["payload"]["entries"] == [entry]


def test_requests_of_one_statement_have_events_of_their_own(session: Session, alice: Passport, bob: Passport) -> None:
    post_all(session, single(change(), passport=alice), single(change(), passport=bob))
    assert [event["actor"]["name"] for event in events(session)] == ["Alice", "Bob"]


def test_event_over_several_merchants_names_none(session: Session) -> None:
    post_all(session, batch([change(merchant_id=AURORA), change(merchant_id=BOREALIS)]))
    assert [event["merchant_id"] for event in events(session)] == [None]


def test_large_change_is_told_of(session: Session) -> None:
    changes = [change(amount="100.00"), change(amount="99.99"), change(type=323, amount="-100.00", note="big")]
    post(session, [batch(changes)], threshold=Threshold("100.00"))
    large = [event for event in events(session) if event["event"] == "LargeChangeDetected"]
    assert [event["payload"]["amount"] for event in large] == ["100.00", "-100.00"]
    assert large[0]["payload"]["threshold"] == "100.00"
    assert large[0]["merchant_id"] == AURORA


@pytest.mark.parametrize("order_no", ["{}", "a,b", "\\", '"', "NULL", "%s", "%(x)s", ":x"])
def test_words_that_mean_something_to_sql_are_only_words(session: Session, order_no: str) -> None:
    assert result_of(post_all(session, single(change(order_no=order_no)))[0])["order_no"] == order_no
    assert rows(session, "select order_no from entries") == [(order_no,)]


def test_name_that_would_shift_a_column_breaks_the_statement(session: Session, alice: Passport) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="separator"):
        post_all(session, single(change(), passport=replace(alice, actor_name="a\x1fb")))


def test_outcomes_are_in_the_order_of_the_requests(session: Session) -> None:
    made = change(amount="5.00", user_id="x")
    post_all(session, single(made, key="k-1"))
    outcomes = post_all(
        session,
        single(change(user_id="y", amount="1.00"), key="k-2"),
        single(made, key="k-1"),
        single(change(user_id="z", type=323, amount="-1.00"), key="k-3"),
    )
    assert [type(o) for o in outcomes] == [Answer, Answer, InsufficientBalance]
    assert [o.is_replayed for o in outcomes if not isinstance(o, ServiceError)] == [False, True]
