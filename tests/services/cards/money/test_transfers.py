"""A transfer happens once and has one outcome, whatever fails in between."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from services.cards import usecases
from services.cards.domain.states import Status
from services.cards.domain.transfers import REFUSALS, Direction
from services.cards.money import queries
from shared.contracts.cards import CardIsClosed, CardNotEmpty, CardNotFound, CardWithoutMerchant
from shared.contracts.ledger import InsufficientBalance, LimitExceeded
from shared.errors import IdempotencyInProgress, IdempotencyKeyReused, OutcomeUnknown, ServiceError
from shared.money import InvalidMoney
from tests.conftest import AURORA, BOREALIS
from tests.services.cards.money.conftest import ALICE, Desk


def test_the_table_says_of_every_state_whether_money_may_move() -> None:
    assert set(REFUSALS) == {(status, direction) for status in Status for direction in Direction}


def test_money_goes_onto_the_card_and_back(desk: Desk) -> None:
    card_id = desk.card()
    up = desk.move(card_id, "top_up", "100.00").result
    assert (up["state"], up["amount"], up["balance"], up["merchant_id"]) == ("posted", "100.00", "100.00", AURORA)
    assert up["requested_by"] == "Alice"
    assert desk.view(card_id)["balance"] == "100.00"
    down = desk.move(card_id, "withdrawal", "30.00").result
    assert (down["direction"], down["balance"]) == ("withdrawal", "70.00")
    assert (desk.ledger.balance(card_id), desk.ledger.balance(AURORA)) == (7_000, 93_000)
    assert desk.view(card_id)["balance"] == "70.00"
    assert desk.told() == ["CardToppedUp", "CardWithdrawn"]
    desk.ledger.prove()


def test_events_name_who_asked_and_what_changed(desk: Desk) -> None:
    card_id = desk.card()
    desk.ledger.faults = ["lost"]
    assert desk.attempt(card_id, "top_up", "100.00") == "outcome_unknown"
    desk.complete()
    query = sa.text("select envelope from outbox where routing_key = 'cards.CardToppedUp'")
    envelope = orjson.loads(desk.run(lambda s: s.scalars(query).one()))
    assert envelope["actor"] == {"id": "usr_alice", "name": "Alice", "type": "user"}
    assert (envelope["action"], envelope["ip"], envelope["merchant_id"]) == (
        "cards.top_up_card", "127.0.0.1", AURORA
    )  # fmt: skip
    assert envelope["payload"]["changes"] == {"balance": {"before": "0", "after": "100.00"}}


@pytest.mark.parametrize("direction", ["top_up", "withdrawal"])
@pytest.mark.parametrize(("fault", "is_posted_at_once"), [("away", False), ("lost", True), ("broken", False)])
def test_an_unknown_outcome_is_found_out_by_the_tick_and_nothing_moves_twice(
    desk: Desk, direction: str, fault: str, is_posted_at_once: bool
) -> None:
    card_id = desk.card()
    desk.move(card_id, "top_up", "50.00")
    desk.ledger.faults = [fault]
    with pytest.raises(OutcomeUnknown) as caught:
        desk.move(card_id, direction, "10.00", key="k1")
    assert caught.value.extra["retry_after_seconds"] == 1
    after = 6_000 if direction == "top_up" else 4_000
    assert desk.ledger.balance(card_id) == (after if is_posted_at_once else 5_000)
    assert desk.states(card_id) == ["posted", "requested"]
    desk.complete()
    desk.complete()
    assert desk.states(card_id) == ["posted", "posted"]
    assert desk.ledger.balance(card_id) == after
    assert desk.view(card_id)["balance"] == f"{after // 100}.00"
    answer = desk.move(card_id, direction, "10.00", key="k1")
    assert answer.is_replayed
    assert (answer.result["state"], answer.result["balance"]) == ("posted", f"{after // 100}.00")
    desk.ledger.prove()


def test_an_unknown_refusal_is_found_out_too(desk: Desk) -> None:
    card_id = desk.card()
    desk.ledger.faults = ["lost"]
    assert desk.attempt(card_id, "top_up", "1000.01", key="k1") == "outcome_unknown"
    desk.complete()
    assert desk.states(card_id) == ["refused"]
    for _ in range(2):
        with pytest.raises(InsufficientBalance) as caught:
            desk.move(card_id, "top_up", "1000.01", key="k1")
        assert caught.value.extra["available"] == "1000.00"
        assert caught.value.extra["is_replayed"]
    assert desk.told() == ["CardTransferRefused"]
    assert desk.view(card_id)["balance"] == "0"


def test_the_same_key_takes_the_transfer_up_where_it_was_left(desk: Desk) -> None:
    card_id = desk.card()
    desk.ledger.faults = ["lost", "away"]
    assert desk.attempt(card_id, "top_up", "10.00", key="k1") == "outcome_unknown"
    # Put off for a moment: whoever comes at once is told to wait.
    with pytest.raises(IdempotencyInProgress):
        desk.move(card_id, "top_up", "10.00", key="k1")
    let_time_pass(desk)
    assert desk.attempt(card_id, "top_up", "10.00", key="k1") == "outcome_unknown"
    let_time_pass(desk)
    assert desk.attempt(card_id, "top_up", "10.00", key="k1") == "posted"
    assert [asked["transfer_id"] for asked in desk.ledger.asked] == [desk.ledger.asked[0]["transfer_id"]] * 3
    assert desk.ledger.balance(card_id) == 1_000


def test_who_is_overtaken_by_the_tick_finds_the_outcome_written_down_and_says_the_same(desk: Desk) -> None:
    card_id = desk.card()
    desk.ledger.meanwhile = desk.complete
    answer = desk.move(card_id, "top_up", "10.00", key="k1")
    assert (answer.result["state"], answer.result["balance"]) == ("posted", "10.00")
    assert len(desk.ledger.asked) == 2
    assert desk.told() == ["CardToppedUp"]
    assert desk.move(card_id, "top_up", "10.00", key="k1").result == answer.result


def let_time_pass(desk: Desk) -> None:
    desk.run(lambda s: s.execute(sa.text("update card_transfers set next_attempt_at = clock_timestamp()")))


def test_the_first_answer_comes_again_for_ever_and_for_no_other_request(desk: Desk) -> None:
    card_id = desk.card()
    first = desk.move(card_id, "top_up", "10.00", key="k1")
    again = desk.move(card_id, "top_up", "10.00", key="k1")
    assert (first.is_replayed, again.is_replayed) == (False, True)
    assert again.result == first.result
    for direction, amount in (("top_up", "11.00"), ("withdrawal", "10.00")):
        with pytest.raises(IdempotencyKeyReused):
            desk.move(card_id, direction, amount, key="k1")
    # The kernel forgets a key after a week; the transfer stays.
    desk.run(lambda s: s.execute(sa.text("delete from idempotency_keys")))
    assert desk.move(card_id, "top_up", "10.00", key="k1").result == first.result
    with pytest.raises(IdempotencyKeyReused):
        desk.move(card_id, "top_up", "11.00", key="k1")
    assert desk.ledger.balance(card_id) == 1_000


def test_a_refusal_before_the_ledger_is_kept_under_its_key(desk: Desk) -> None:
    card_id = desk.card(is_active=False)
    assert desk.attempt(card_id, "top_up", "10.00", key="k1") == "card_not_active"
    desk.run(lambda s: usecases.activate_card(s, ALICE, card_id=card_id))
    assert desk.attempt(card_id, "top_up", "10.00", key="k1") == "card_not_active"
    assert desk.attempt(card_id, "top_up", "10.00", key="k2") == "posted"
    assert desk.states(card_id) == ["posted"]


@pytest.mark.parametrize("amount", ["0", "-1.00", "1.001", "x", "9" * 18])
def test_an_amount_is_positive_and_of_the_cards_currency(desk: Desk, amount: str) -> None:
    with pytest.raises(InvalidMoney):
        desk.move(desk.card(), "top_up", amount)


def test_a_card_of_nobody_takes_no_money(desk: Desk) -> None:
    with pytest.raises(CardWithoutMerchant):
        desk.move(desk.card(merchant_id=None), "top_up", "1.00")


def test_a_card_of_another_merchant_does_not_exist(desk: Desk, bob: Any, charlie: Any) -> None:
    card_id = desk.card()
    assert desk.attempt(card_id, "top_up", "5.00", passport=bob) == "posted"
    with pytest.raises(CardNotFound):
        desk.move(card_id, "withdrawal", "5.00", passport=charlie)
    with pytest.raises(CardNotFound):
        desk.run(lambda s: queries.list_card_transfers(s, charlie, card_id=card_id))


def test_states_of_the_card(desk: Desk) -> None:
    card_id = desk.card(is_active=False)
    assert desk.attempt(card_id, "top_up", "1.00") == "card_not_active"
    assert desk.attempt(card_id, "withdrawal", "1.00") == "card_not_active"
    desk.run(lambda s: usecases.activate_card(s, ALICE, card_id=card_id))
    assert desk.attempt(card_id, "top_up", "1.00") == "posted"
    desk.run(lambda s: usecases.freeze_card(s, ALICE, card_id=card_id, reason="lost"))
    assert desk.attempt(card_id, "top_up", "1.00") == "card_frozen"
    assert desk.attempt(card_id, "withdrawal", "1.00") == "posted"
    desk.run(lambda s: usecases.close_card(s, ALICE, card_id=card_id, reason="done"))
    assert desk.attempt(card_id, "top_up", "1.00") == "card_closed"
    assert desk.attempt(card_id, "withdrawal", "1.00") == "card_closed"


def close(desk: Desk, card_id: str) -> Any:
    return desk.run(lambda s: usecases.close_card(s, ALICE, card_id=card_id, reason="done"))


def assign(desk: Desk, card_id: str, merchant_id: str | None) -> Any:
    return desk.run(lambda s: usecases.assign_card(s, ALICE, card_id=card_id, merchant_id=merchant_id))


def test_a_card_with_money_neither_closes_nor_leaves_its_merchant(desk: Desk) -> None:
    card_id, other = desk.card(), desk.card()
    desk.move(card_id, "top_up", "1.00")
    with pytest.raises(CardNotEmpty, match=r"1\.00 CNY"):
        close(desk, card_id)
    for merchant_id in (BOREALIS, None):
        with pytest.raises(CardNotEmpty):
            assign(desk, card_id, merchant_id)
    with pytest.raises(CardNotEmpty) as caught:
        desk.run(lambda s: usecases.assign_cards(s, ALICE, card_ids=[other, card_id], merchant_id=BOREALIS))
    assert caught.value.extra["card_ids"] == [card_id]
    assert desk.view(other)["merchant_id"] == AURORA
    assert assign(desk, card_id, AURORA)["merchant_id"] == AURORA
    desk.move(card_id, "withdrawal", "1.00")
    assert close(desk, card_id)["status"] == "closed"


def test_a_transfer_under_way_counts_as_money(desk: Desk) -> None:
    card_id = desk.card()
    desk.ledger.faults = ["away"]
    assert desk.attempt(card_id, "top_up", "5000.00") == "outcome_unknown"
    with pytest.raises(CardNotEmpty, match="under way"):
        close(desk, card_id)
    with pytest.raises(CardNotEmpty, match="under way"):
        assign(desk, card_id, BOREALIS)
    desk.complete()  # refused: nothing moved
    assert close(desk, card_id)["status"] == "closed"


def test_a_card_that_changed_hands_and_came_back_shows_what_it_has(desk: Desk) -> None:
    card_id = desk.card()
    desk.ledger.fund("10.00", BOREALIS)
    for _ in range(3):
        desk.move(card_id, "top_up", "9.00")
        desk.move(card_id, "withdrawal", "9.00")
    assign(desk, card_id, BOREALIS)
    desk.move(card_id, "top_up", "2.00")
    assert desk.view(card_id)["balance"] == "2.00"
    desk.move(card_id, "withdrawal", "2.00")
    assign(desk, card_id, AURORA)
    desk.move(card_id, "top_up", "3.00")
    assert desk.view(card_id)["balance"] == "3.00"
    assert (desk.ledger.balance(AURORA), desk.ledger.balance(BOREALIS)) == (99_700, 1_000)


def test_outcomes_written_down_in_another_order_leave_the_latest_balance(desk: Desk) -> None:
    card_id = desk.card()
    desk.ledger.faults = ["lost"]
    assert desk.attempt(card_id, "top_up", "10.00") == "outcome_unknown"
    desk.move(card_id, "top_up", "5.00")
    assert desk.view(card_id)["balance"] == "15.00"
    desk.complete()
    assert desk.view(card_id)["balance"] == "15.00"


def limit(desk: Desk, card_id: str, **limits: Any) -> Any:
    return desk.run(lambda s: usecases.update_card(s, ALICE, card_id=card_id, limits=limits))


def test_limits_are_told_as_a_change(desk: Desk) -> None:
    card_id = desk.card()
    assert limit(desk, card_id, max_amount="5", daily_count=2)["limits"]["max_amount"] == "5.00"
    assert limit(desk, card_id, max_amount=None)["limits"] == {
        "max_amount": None, "daily_amount": None, "daily_count": 2, "monthly_amount": None
    }  # fmt: skip
    query = sa.text("select envelope from outbox where routing_key = 'cards.CardUpdated' order by id")
    envelopes = [orjson.loads(text) for text in desk.run(lambda s: s.scalars(query).all())]
    changed = [e["payload"]["changes"]["limits"] for e in envelopes]
    assert [(c["before"]["max_amount"], c["after"]["max_amount"]) for c in changed] == [(None, "5.00"), ("5.00", None)]
    limit(desk, card_id, daily_count=2)
    assert len(desk.run(lambda s: s.scalars(query).all())) == 2


def test_limits_count_what_is_under_way_and_forget_what_is_refused(desk: Desk) -> None:
    card_id = desk.card()
    limit(desk, card_id, daily_amount="2000.00")
    desk.ledger.faults = ["away"]
    assert desk.attempt(card_id, "top_up", "1500.00") == "outcome_unknown"
    with pytest.raises(LimitExceeded) as caught:
        desk.move(card_id, "top_up", "600.00")
    assert caught.value.extra == {
        "limit": "daily_amount", "allowed": "2000.00", "used": "1500.00", "currency": "CNY"
    }  # fmt: skip
    desk.complete()  # the merchant has 1 000 only
    assert desk.states(card_id) == ["refused"]
    assert desk.attempt(card_id, "top_up", "600.00") == "posted"


def test_a_withdrawal_gives_the_amount_back_once_it_is_posted(desk: Desk) -> None:
    card_id = desk.card()
    limit(desk, card_id, daily_amount="100.00", monthly_amount="100.00")
    desk.move(card_id, "top_up", "100.00")
    assert desk.attempt(card_id, "top_up", "0.01") == "limit_exceeded"
    desk.ledger.faults = ["away"]
    assert desk.attempt(card_id, "withdrawal", "40.00") == "outcome_unknown"
    assert desk.attempt(card_id, "top_up", "40.00") == "limit_exceeded"
    desk.complete()
    assert desk.attempt(card_id, "top_up", "40.01") == "limit_exceeded"
    assert desk.attempt(card_id, "top_up", "40.00") == "posted"
    assert desk.attempt(card_id, "withdrawal", "100.00") == "posted"  # which no limit refuses


def date_back(desk: Desk, card_id: str, instant: datetime) -> None:
    query = sa.text("update card_transfers set created_at = :instant where card_id = :card_id")
    desk.run(lambda s: s.execute(query, {"instant": instant, "card_id": card_id}))


def test_days_and_months_are_those_of_the_time_zone(desk: Desk) -> None:
    card_id = desk.card()
    desk.move(card_id, "top_up", "10.00")

    def used(now: str, zone_name: str) -> tuple[int, int, int]:
        at = datetime.fromisoformat(now)
        usage = desk.run(lambda s: queries.read_usage(s, card_id, now=at, zone_name=zone_name, is_needed=True))
        return usage.day_amount, usage.day_count, usage.month_amount

    date_back(desk, card_id, datetime(2026, 3, 31, 16, 30, tzinfo=UTC))
    # In Shanghai that was half past midnight of the first of April.
    assert used("2026-03-31T23:00:00Z", "UTC") == (1000, 1, 1000)
    assert used("2026-04-01T00:00:00Z", "UTC") == (0, 0, 0)
    assert used("2026-04-01T15:59:59Z", "Asia/Shanghai") == (1000, 1, 1000)
    assert used("2026-04-01T16:00:00Z", "Asia/Shanghai") == (0, 0, 1000)
    assert used("2026-04-30T16:00:00Z", "Asia/Shanghai") == (0, 0, 0)


def test_yesterdays_top_up_counts_for_the_month_only(desk: Desk) -> None:
    card_id = desk.card()
    limit(desk, card_id, daily_amount="10.00", daily_count=1)
    desk.move(card_id, "top_up", "10.00")
    assert desk.attempt(card_id, "top_up", "10.00") == "limit_exceeded"
    date_back(desk, card_id, datetime.now(UTC) - timedelta(days=1))
    assert desk.attempt(card_id, "top_up", "10.00") == "posted"


def test_transfers_are_listed_newest_first_page_by_page(desk: Desk) -> None:
    card_id = desk.card()
    amounts = [f"{n}.00" for n in range(1, 6)]
    for amount in amounts:
        desk.move(card_id, "top_up", amount)
    desk.attempt(card_id, "withdrawal", "99.00")
    seen: list[Any] = []
    cursor = None
    while True:
        page = desk.run(lambda s, c=cursor: queries.list_card_transfers(s, ALICE, card_id=card_id, limit=4, cursor=c))
        seen += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break
    assert [t["amount"] for t in seen] == ["99.00", *reversed(amounts)]
    assert seen[0]["refusal"]["code"] == "insufficient_balance"
    assert (seen[0]["state"], seen[0]["balance"], seen[1]["refusal"]) == ("refused", None, None)


def test_a_card_that_is_closed_keeps_its_limits(desk: Desk) -> None:
    card_id = desk.card()
    close(desk, card_id)
    with pytest.raises(CardIsClosed):
        limit(desk, card_id, max_amount="1")


def test_what_is_under_way_is_counted(desk: Desk) -> None:
    card_id = desk.card()
    desk.ledger.faults = ["away", "away"]
    for _ in range(2):
        with pytest.raises(ServiceError):
            desk.move(card_id, "top_up", "1.00")
    assert desk.run(lambda s: queries.count_under_way(s, card_id)) == 2
    desk.complete()
    assert desk.run(lambda s: queries.count_under_way(s, card_id)) == 0
