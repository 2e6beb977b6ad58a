"""The sender, from queue to group, against the emulator over real HTTP: nothing lost, nothing knowingly twice."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from services.telegram.client import BotApi, BotApiError, Refusal, Sent
from services.telegram.domain import FAILURES_MAX, Rate
from services.telegram.models import Binding, Notification
from services.telegram.sender import Sender
from services.telegram.usecases import bindings, deliveries
from services.telegram.usecases.deliveries import Claim
from services.telegram.usecases.notifications import queue_changes, retry_notification
from simulators.telegram import RunningSimulator, running_simulator
from tests.services.telegram.conftest import ALICE, GROUP, bind, entry, events, notifications

Run = Callable[..., Any]
NO_LIMIT = Rate(burst=1000, interval_seconds=0.001)
RATES = {"chat_rate": NO_LIMIT, "all_chats_rate": NO_LIMIT}


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator() as running:
        yield running


@pytest.fixture
def sender(simulator: RunningSimulator, run: Run) -> Sender:
    return Sender(run, BotApi(simulator.url, simulator.token, read_timeout_seconds=0.5), **RATES)


@pytest.fixture
def queue(run: Run) -> Callable[..., str]:
    """Queues so many messages for a bound group. Returns: the binding's id."""

    def queue(count: int = 1, **fields: Any) -> str:
        entries = [entry(entry_id=f"ent_{n:03}") for n in range(count)]

        def work(session: Any) -> str:
            binding = bind(session, **fields)
            queue_changes(
                session,
                entries={f"evt_{binding['id']}": [e | {"merchant_id": binding["merchant_id"]} for e in entries]},
                default_threshold="1",
            )
            return binding["id"]

        return str(run(work))

    return queue


def all_notifications(run: Run) -> list[Notification]:
    found: list[Notification] = run(notifications)
    return found


def only_notification(run: Run) -> Notification:
    [notification] = all_notifications(run)
    return notification


def make_due(run: Run) -> None:
    """Let what waits for later be due now."""
    run(lambda session: session.execute(sa.text("update notifications set due_at = now() - interval '1 second'")))
    run(lambda session: session.execute(sa.text("update pace set paused_until = 'epoch'")))


def seconds_until_due(notification: Notification) -> float:
    return notification.due_at.timestamp() - time.time()


def test_message_arrives_once_with_its_number(
    simulator: RunningSimulator, sender: Sender, run: Run, queue: Callable[..., str]
) -> None:
    queue()
    assert sender.send_one() == 0
    assert sender.send_one() is None
    [message] = simulator.messages(int(GROUP))
    sent = only_notification(run)
    assert (sent.status, sent.message_id, sent.attempts) == ("sent", message["message_id"], 1)
    assert message["text"] == sent.text
    assert run(events)[-1] == "NotificationSent"


def test_binding_without_title_takes_the_groups(
    simulator: RunningSimulator, sender: Sender, run: Run, queue: Callable[..., str]
) -> None:
    simulator.name_chat(int(GROUP), "Northwind payments")
    binding_id = queue()
    run(lambda session: session.execute(sa.update(Binding).values(title="")))
    sender.send_one()
    assert run(lambda session: session.get(Binding, binding_id)).title == "Northwind payments"


def test_rate_limited_chat_is_left_alone_as_long_as_telegram_asks(
    simulator: RunningSimulator, sender: Sender, run: Run, queue: Callable[..., str]
) -> None:
    queue(2)
    queue(merchant_id="mer_b", chat_id="-2")
    simulator.order_fault("too_many_requests", retry_after=30, chat_id=int(GROUP))
    for _ in range(3):
        sender.send_one()
    assert [message["chat"]["id"] for message in simulator.messages()] == [-2], "other chats go on"
    seconds = sender.send_one()
    assert seconds is not None
    assert 28 < seconds <= 30
    [limited] = [n for n in all_notifications(run) if n.last_error]
    assert (limited.status, limited.failures, limited.attempts) == ("queued", 0, 1)
    make_due(run)
    sender.send_one()
    sender.send_one()
    assert len(simulator.messages(int(GROUP))) == 2


def test_failure_that_passes_is_tried_again_later(
    simulator: RunningSimulator, sender: Sender, run: Run, queue: Callable[..., str]
) -> None:
    queue()
    simulator.order_fault("server_error", times=2)
    sender.send_one()
    failed = only_notification(run)
    assert (failed.status, failed.failures) == ("failed", 1)
    assert failed.last_error == "Telegram refused with 500: Internal Server Error"
    assert 1 < seconds_until_due(failed) <= 2
    make_due(run)
    sender.send_one()
    assert 3 < seconds_until_due(only_notification(run)) <= 4
    make_due(run)
    sender.send_one()
    [message] = simulator.messages()
    assert message["text"] == failed.text, "the group was certainly not told before, so nothing says so"
    assert only_notification(run).attempts == 3


def test_message_is_given_up_after_the_last_failure_and_comes_back_by_hand(
    simulator: RunningSimulator, sender: Sender, run: Run, queue: Callable[..., str]
) -> None:
    queue()
    simulator.order_fault("server_error", times=FAILURES_MAX)
    for _ in range(FAILURES_MAX):
        assert only_notification(run).status in ("queued", "failed")
        make_due(run)
        sender.send_one()
    dead = only_notification(run)
    assert (dead.status, dead.attempts) == ("dead", FAILURES_MAX)
    assert run(events)[-1] == "NotificationFailed"
    make_due(run)
    assert sender.send_one() is None, "what is dead is not tried"
    run(lambda session: retry_notification(session, ALICE, notification_id=dead.id))
    sender.send_one()
    assert only_notification(run).status == "sent"
    assert len(simulator.messages()) == 1


@pytest.mark.parametrize(("fault", "reason"), [("bot_was_kicked", "bot_removed"), ("chat_not_found", "chat_not_found")])
def test_removed_bot_disables_the_binding(
    simulator: RunningSimulator,
    sender: Sender,
    run: Run,
    queue: Callable[..., str],
    fault: str,
    reason: str,
) -> None:
    binding_id = queue(3)
    simulator.order_fault(fault)
    sender.send_one()
    binding = run(lambda session: session.get(Binding, binding_id))
    assert (binding.status, binding.status_reason) == ("disabled", reason)
    assert Counter(n.status for n in all_notifications(run)) == {"dead": 1, "suppressed": 2}
    assert run(events)[-2:] == ["NotificationFailed", "BindingUpdated"]
    assert sender.send_one() is None
    assert simulator.messages() == []


def test_bot_removed_under_several_senders_ends_in_one_disabled_binding(
    simulator: RunningSimulator, run: Run, queue: Callable[..., str]
) -> None:
    binding_id = queue(12)
    simulator.order_fault("delay", delay_seconds=0.1, times=None)
    simulator.order_fault("bot_was_kicked", times=None)
    sender = Sender(run, BotApi(simulator.url, simulator.token), **RATES)
    sender.start()
    deadline = time.monotonic() + 10
    while {n.status for n in all_notifications(run)} - {"dead", "suppressed"} and time.monotonic() < deadline:
        time.sleep(0.05)
    sender.stop()
    found = all_notifications(run)
    assert {n.status for n in found} == {"dead", "suppressed"}
    assert {n.lease_token for n in found} == {None}
    assert run(events).count("BindingUpdated") == 1
    assert run(lambda session: session.get(Binding, binding_id)).status_reason == "bot_removed"


def test_group_that_migrated_is_followed(
    simulator: RunningSimulator, sender: Sender, run: Run, queue: Callable[..., str]
) -> None:
    binding_id = queue(2)
    simulator.order_fault("migrated", migrate_to_chat_id=-100555, chat_id=int(GROUP))
    for _ in range(3):
        sender.send_one()
    assert run(lambda session: session.get(Binding, binding_id)).chat_id == -100555
    assert len(simulator.messages(-100555)) == 2
    assert {n.status for n in all_notifications(run)} == {"sent"}
    assert "BindingUpdated" in run(events)


def test_group_that_migrated_into_a_bound_one_is_disabled(
    simulator: RunningSimulator, sender: Sender, run: Run, queue: Callable[..., str]
) -> None:
    binding_id = queue(2)
    run(lambda session: bind(session, merchant_id="mer_b", chat_id="-100555"))
    simulator.order_fault("migrated", migrate_to_chat_id=-100555)
    sender.send_one()
    binding = run(lambda session: session.get(Binding, binding_id))
    assert (binding.status, binding.status_reason) == ("disabled", "migrated_to_bound_chat")
    assert simulator.messages() == [], "another merchant's group hears nothing"


@pytest.mark.parametrize(
    ("fault", "messages"),
    [
        ({"kind": "delay", "delay_seconds": 0.8}, 2),
        ({"kind": "drop_after_delivery"}, 2),
        ({"kind": "drop_before_delivery"}, 1),
        ({"kind": "bad_gateway"}, 1),
    ],
)
def test_message_without_an_answer_is_sent_again_and_says_so(
    simulator: RunningSimulator,
    sender: Sender,
    run: Run,
    queue: Callable[..., str],
    fault: dict[str, Any],
    messages: int,
) -> None:
    queue()
    simulator.order_fault(**fault)
    sender.send_one()
    assert only_notification(run).status == "failed"
    make_due(run)
    sender.send_one()
    sent = only_notification(run)
    assert sent.status == "sent"
    time.sleep(fault.get("delay_seconds", 0))
    texts = sorted((message["text"] for message in simulator.messages()), key=len)
    assert len(texts) == messages
    assert texts[:-1] == [sent.text] * (messages - 1)
    assert texts[-1].startswith(sent.text)
    assert "You may have this message already" in texts[-1]


def test_message_whose_sender_died_is_sent_after_its_lease_and_says_so(
    simulator: RunningSimulator, sender: Sender, run: Run, queue: Callable[..., str]
) -> None:
    queue()
    dead_senders = run(lambda session: deliveries.claim_notification(session, **RATES))
    assert isinstance(dead_senders, Claim)
    seconds = sender.send_one()
    assert seconds is not None
    assert 25 < seconds <= 30, "the lease holds"
    make_due(run)
    sender.send_one()
    assert "You may have this message already" in simulator.messages()[0]["text"]


def test_late_answer_of_a_lost_lease_is_still_believed(run: Run, queue: Callable[..., str]) -> None:
    queue()
    first = run(lambda session: deliveries.claim_notification(session, **RATES))
    make_due(run)
    second = run(lambda session: deliveries.claim_notification(session, **RATES))
    run(lambda s: deliveries.settle_failed(s, first, error="late", is_outcome_unknown=True))
    assert only_notification(run).status == "queued", "the second attempt is not the first one's to judge"
    run(lambda s: deliveries.settle_sent(s, first, message_id=5, chat_title=""))
    run(lambda s: deliveries.settle_failed(s, second, error="x", is_outcome_unknown=False))
    assert only_notification(run).status == "sent"
    make_due(run)
    assert run(lambda session: deliveries.claim_notification(session, **RATES)) is None


def test_message_sent_after_its_binding_was_deleted_counts_as_sent(run: Run, queue: Callable[..., str]) -> None:
    binding_id = queue()
    claim = run(lambda session: deliveries.claim_notification(session, **RATES))
    run(lambda session: bindings.delete_binding(session, ALICE, binding_id=binding_id))
    run(lambda session: deliveries.settle_sent(session, claim, message_id=5, chat_title=""))
    assert only_notification(run).status == "sent"


def test_failure_after_the_binding_was_deleted_is_not_tried_again(run: Run, queue: Callable[..., str]) -> None:
    binding_id = queue()
    claim = run(lambda session: deliveries.claim_notification(session, **RATES))
    run(lambda session: bindings.delete_binding(session, ALICE, binding_id=binding_id))
    run(lambda session: deliveries.settle_failed(session, claim, error="x", is_outcome_unknown=False))
    make_due(run)
    assert only_notification(run).status == "suppressed"
    assert run(lambda session: deliveries.claim_notification(session, **RATES)) is None


def test_text_that_telegram_will_never_take_is_given_up_at_once(
    simulator: RunningSimulator, sender: Sender, run: Run, queue: Callable[..., str]
) -> None:
    queue()
    run(lambda session: session.execute(sa.update(Notification).values(text="x" * 5000)))
    sender.send_one()
    assert only_notification(run).status == "dead"


def test_wrong_token_stops_all_and_loses_nothing(
    simulator: RunningSimulator, run: Run, queue: Callable[..., str]
) -> None:
    queue(2)
    misconfigured = Sender(run, BotApi(simulator.url, "123:wrong"), **RATES)
    misconfigured.send_one()
    seconds = misconfigured.send_one()
    assert seconds is not None
    assert 28 < seconds <= 30
    assert [(n.status, n.failures) for n in all_notifications(run)] == [("queued", 0)] * 2


class ForgetfulDatabase:
    """Does work, save that the database is away for some transactions."""

    def __init__(self, run: Run, away: set[int]) -> None:
        self._run, self._away, self._transactions = run, away, 0

    def __call__(self, work: Any) -> Any:
        self._transactions += 1
        if self._transactions in self._away:
            raise OperationalError("select", {}, Exception("server closed the connection"))
        return self._run(work)


def test_outcome_is_written_however_long_the_database_is_away(
    simulator: RunningSimulator, run: Run, queue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue()
    monkeypatch.setattr("services.telegram.sender.TROUBLE_SECONDS", 0.01)
    forgetful: Any = ForgetfulDatabase(run, away={2, 3, 4})
    Sender(forgetful, BotApi(simulator.url, simulator.token), **RATES).send_one()
    assert only_notification(run).status == "sent"
    assert len(simulator.messages()) == 1


def test_two_senders_at_once_send_each_message_once(
    simulator: RunningSimulator, run: Run, queue: Callable[..., str]
) -> None:
    queue(60)
    queue(60, merchant_id="mer_b", chat_id="-2")
    senders = [Sender(run, BotApi(simulator.url, simulator.token), **RATES) for _ in range(2)]
    for sender in senders:
        sender.start()
    give_up_at = time.monotonic() + 30
    while {n.status for n in all_notifications(run)} != {"sent"} and time.monotonic() < give_up_at:
        time.sleep(0.1)
    for sender in senders:
        sender.stop()
    found = all_notifications(run)
    assert {n.status for n in found} == {"sent"}
    assert {n.attempts for n in found} == {1}
    assert len(simulator.messages()) == 120
    assert {n.message_id for n in found} == {message["message_id"] for message in simulator.messages()}


def test_burst_to_one_group_is_paced(simulator: RunningSimulator, run: Run, queue: Callable[..., str]) -> None:
    queue(6)
    queue(2, merchant_id="mer_b", chat_id="-2")
    rate = Rate(burst=3, interval_seconds=0.4)
    sender = Sender(run, BotApi(simulator.url, simulator.token), chat_rate=rate, all_chats_rate=NO_LIMIT)
    sender.start()
    deadline = time.monotonic() + 10
    while len(simulator.messages()) < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    sender.stop()
    at = [message["received_at"] for message in simulator.messages(int(GROUP))]
    assert len(at) == 6
    assert at[2] - at[0] < 0.4, "a burst goes at once"
    assert at[5] - at[0] >= 3 * 0.4 - 0.1, "then one in each interval"
    assert max(m["received_at"] for m in simulator.messages(-2)) < at[3], "another group does not wait for it"


def test_all_groups_together_are_paced(simulator: RunningSimulator, run: Run, queue: Callable[..., str]) -> None:
    for number in range(1, 7):
        queue(merchant_id=f"mer_{number}", chat_id=str(-number))
    rate = Rate(burst=2, interval_seconds=0.2)
    sender = Sender(run, BotApi(simulator.url, simulator.token), chat_rate=NO_LIMIT, all_chats_rate=rate)
    sender.start()
    deadline = time.monotonic() + 10
    while len(simulator.messages()) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    sender.stop()
    at = sorted(message["received_at"] for message in simulator.messages())
    assert len(at) == 6
    assert at[-1] - at[0] >= 4 * 0.2 - 0.1


def test_sender_that_is_stopped_finishes_its_attempt(
    simulator: RunningSimulator, run: Run, queue: Callable[..., str]
) -> None:
    queue()
    simulator.order_fault("delay", delay_seconds=0.5)
    sender = Sender(run, BotApi(simulator.url, simulator.token), **RATES)
    sender.start()
    while only_notification(run).lease_token is None:
        time.sleep(0.02)
    sender.stop()
    assert only_notification(run).status == "sent"


class StumblingBot:
    """Raises what nobody foresaw, once; delivers nothing."""

    def __init__(self) -> None:
        self.calls = 0

    def send_message(self, chat_id: int, text: str) -> Sent:
        self.calls += 1
        if self.calls == 1:
            raise RuntimeError("nobody foresaw this")
        raise BotApiError(Refusal.REFUSED, "no")


def test_sender_survives_what_nobody_foresaw(
    run: Run, queue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(2)
    monkeypatch.setattr("services.telegram.sender.TROUBLE_SECONDS", 0.01)
    bot = StumblingBot()
    sender = Sender(run, bot, **RATES)
    sender.start()
    deadline = time.monotonic() + 5
    while bot.calls < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    sender.stop()
    assert bot.calls == 2
