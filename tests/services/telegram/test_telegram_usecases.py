"""What telegram does with bindings, rules and notifications, on a real PostgreSQL."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from services.telegram import queries
from services.telegram.models import Binding, Notification
from services.telegram.service import TelegramService
from services.telegram.usecases import bindings
from services.telegram.usecases.notifications import (
    queue_changes,
    queue_device_edge,
    queue_test,
    retry_notification,
)
from shared.contracts.devices import DeviceCameOnline, DeviceWentOffline
from shared.contracts.telegram import (
    BindingIsDisabled,
    BindingNotFound,
    ChatAlreadyBound,
    InvalidChatId,
    InvalidThreshold,
    NotificationAlreadySent,
    NotificationNotFound,
)
from shared.paging import InvalidCursor
from tests.services.telegram.conftest import ALICE, BOB, CHARLIE, GROUP, bind, entry, events, notifications

ALL: dict[str, Any] = {"merchant_id": None, "status": None, "limit": 50, "cursor": None}
ALL_NOTIFICATIONS: dict[str, Any] = {**ALL, "binding_id": None, "type": None}


def queue(session: Session, *entries: Any, event_id: str = "evt_1", default_threshold: str = "10000.00") -> int:
    return queue_changes(session, entries={event_id: entries}, default_threshold=default_threshold)


def test_bound_merchant_is_told_of(session: Session) -> None:
    binding = bindings.create_binding(session, merchant_id="mer_a", chat_id=GROUP, title="", language="zh")
    assert binding["chat_id"] == GROUP
    assert binding["status"] == "active"
    assert events(session) == ["BindingCreated"]
    assert queries.get_rules(session, ALICE, binding_id=binding["id"]) == {
        "large_change": {"enabled": False, "threshold": None},
        "adjustment": {"enabled": False},
        "device": {"enabled": False},
    }


def test_group_belongs_to_one_merchant(session: Session) -> None:
    bind(session)
    with pytest.raises(ChatAlreadyBound):
        bind(session, merchant_id="mer_b")
    with pytest.raises(InvalidChatId):
        bind(session, chat_id="@northwind")


def test_binding_of_another_merchant_looks_like_none(session: Session) -> None:
    binding_id = bind(session)["id"]
    rule: Any = {"enabled": True, "threshold": "1"}
    for attempt in (
        lambda: queries.get_rules(session, CHARLIE, binding_id=binding_id),
        lambda: bindings.change_rules(session, CHARLIE, binding_id=binding_id, large_change=rule),
        lambda: bindings.update_binding(session, CHARLIE, binding_id=binding_id, changes={"title": "x"}),
        lambda: bindings.delete_binding(session, CHARLIE, binding_id=binding_id),
        lambda: queue_test(session, CHARLIE, binding_id=binding_id),
    ):
        with pytest.raises(BindingNotFound):
            attempt()
    assert queries.list_bindings(session, CHARLIE, **ALL)["items"] == []
    assert queries.list_bindings(session, CHARLIE, **ALL | {"merchant_id": "mer_a"})["items"] == []
    assert len(queries.list_bindings(session, BOB, **ALL)["items"]) == 1


def test_notification_of_another_merchant_looks_like_none(session: Session) -> None:
    notification_id = queue_test(session, ALICE, binding_id=bind(session)["id"])["id"]
    with pytest.raises(NotificationNotFound):
        queries.get_notification(session, CHARLIE, notification_id=notification_id)
    with pytest.raises(NotificationNotFound):
        retry_notification(session, CHARLIE, notification_id=notification_id)
    assert queries.list_notifications(session, CHARLIE, **ALL_NOTIFICATIONS)["items"] == []
    assert len(queries.list_notifications(session, BOB, **ALL_NOTIFICATIONS)["items"]) == 1


def test_changed_rules_are_told_with_before_and_after(session: Session) -> None:
    binding_id = bind(session, threshold="1000")["id"]
    rule: Any = {"enabled": True, "threshold": "1000.000"}
    assert bindings.change_rules(session, BOB, binding_id=binding_id, large_change=rule) == {
        "large_change": {"enabled": True, "threshold": "1000.00"},
        "adjustment": {"enabled": False},
        "device": {"enabled": False},
    }
    assert events(session) == ["BindingCreated", "NotificationRulesChanged"], "what did not change is not told"
    with pytest.raises(InvalidThreshold):
        bindings.change_rules(session, BOB, binding_id=binding_id, large_change={"enabled": True, "threshold": "-1"})


class Woken:
    """A sender, as far as who wakes it sees."""

    def __init__(self) -> None:
        self.times = 0

    def wake_after(self, _session: Session) -> None:
        self.times += 1


def test_change_that_queues_no_message_leaves_the_sender_asleep(session: Session) -> None:
    bind(session)
    service, woken = TelegramService(), Woken()
    service.outgoing = woken  # type: ignore[assignment]
    for event_id, amount, times in (("evt_1", "999.99", 0), ("evt_2", "1000.00", 1), ("evt_2", "1000.00", 1)):
        envelope: Any = {"event_id": event_id, "payload": {"entries": [entry(amount)]}}
        TelegramService.on_balances_changed.__wrapped__(service, session, [envelope])
        assert woken.times == times, (event_id, amount)


def test_entry_at_the_threshold_queues_one_message_for_its_merchants_group(session: Session) -> None:
    bind(session)
    bind(session, merchant_id="mer_b", chat_id="-1002")
    queued = queue(
        session,
        entry("999.99", entry_id="ent_1"),
        entry("1000.00", entry_id="ent_2"),
        entry("-1000.00", entry_id="ent_3"),
        entry("5000.00", entry_id="ent_4", merchant_id="mer_c"),
    )
    assert queued == 2
    assert [n.entry_id for n in notifications(session)] == ["ent_2", "ent_3"]
    assert {n.chat_id for n in notifications(session)} == {int(GROUP)}
    assert "+1000.00 CNY" in notifications(session)[0].text


def test_messages_of_one_event_keep_its_order(session: Session) -> None:
    bind(session)
    entries = [entry(entry_id=f"ent_{n:03}") for n in range(200)]
    queue(session, *entries)
    assert [n.entry_id for n in notifications(session)] == [e["entry_id"] for e in entries]


def test_event_delivered_twice_queues_nothing_more(session: Session) -> None:
    bind(session)
    assert queue(session, entry()) == 1
    assert queue(session, entry()) == 0
    assert queue(session, entry(), event_id="evt_2") == 1


def test_many_events_queue_what_each_of_them_queues_alone(session: Session) -> None:
    bind(session)
    bind(session, merchant_id="mer_b", chat_id="-1002")
    changed = {"evt_1": [entry()], "evt_2": [entry("1.00")], "evt_3": [entry(), entry(merchant_id="mer_b")]}
    assert queue_changes(session, entries=changed, default_threshold="1") == 3
    queued = {(n.event_id, n.merchant_id) for n in notifications(session)}
    assert queued == {("evt_1", "mer_a"), ("evt_3", "mer_a"), ("evt_3", "mer_b")}


def test_rule_without_threshold_takes_the_parameters(session: Session) -> None:
    bind(session, threshold=None)
    assert queue(session, entry("1999.99"), default_threshold="2000.00") == 0
    assert queue(session, entry("2000.00"), default_threshold="2000.00") == 1


def test_rule_that_is_off_queues_nothing(session: Session) -> None:
    binding_id = bind(session)["id"]
    off: Any = {"enabled": False, "threshold": "1"}
    bindings.change_rules(session, ALICE, binding_id=binding_id, large_change=off)
    assert queue(session, entry()) == 0


@pytest.mark.parametrize("code", [326, 335, 341, 342])
def test_adjustment_of_any_amount_is_told_with_its_reason(session: Session, code: int) -> None:
    on, off, theirs = bind(session), bind(session, chat_id="-1002"), bind(session, merchant_id="mer_b", chat_id="-1003")
    rule: Any = {"enabled": False, "threshold": None}
    for binding in (on, theirs):
        rules = bindings.change_rules(
            session, ALICE, binding_id=binding["id"], large_change=rule, adjustment={"enabled": True}
        )
        assert rules["adjustment"] == {"enabled": True}
    adjusted = entry("-0.01", type=code, reason="You were charged twice.", operator="Alice", entry_id="ent_1")
    assert queue(session, adjusted, entry("99.99", reason="not by hand", entry_id="ent_2")) == 1
    [told] = notifications(session)
    assert (told.type, told.binding_id, told.entry_id) == ("adjustment", on["id"], "ent_1")
    assert "-0.01 CNY" in told.text
    assert told.text.endswith("Reason: You were charged twice.")
    assert "Alice" not in told.text
    assert bindings.change_rules(session, ALICE, binding_id=on["id"], large_change=rule)["adjustment"]["enabled"]
    assert not queries.get_rules(session, ALICE, binding_id=off["id"])["adjustment"]["enabled"]


def test_adjustment_that_is_large_is_told_once(session: Session) -> None:
    binding_id = bind(session, threshold="1000")["id"]
    rule: Any = {"enabled": True, "threshold": "1000"}
    queue(session, entry("5000.00", type=341, reason="Sorry."), event_id="evt_1")
    bindings.change_rules(session, ALICE, binding_id=binding_id, large_change=rule, adjustment={"enabled": True})
    queue(session, entry("5000.00", type=341, reason="Sorry."), entry("5000.00", entry_id="ent_9"), event_id="evt_2")
    assert [n.type for n in notifications(session)] == ["large_change", "adjustment", "large_change"]


def test_disabled_binding_gets_its_messages_suppressed(session: Session) -> None:
    binding_id = bind(session)["id"]
    bindings.update_binding(session, ALICE, binding_id=binding_id, changes={"status": "disabled"})
    queue(session, entry())
    [suppressed] = notifications(session)
    assert suppressed.status == "suppressed"
    with pytest.raises(BindingIsDisabled):
        retry_notification(session, ALICE, notification_id=suppressed.id)
    with pytest.raises(BindingIsDisabled):
        queue_test(session, ALICE, binding_id=binding_id)
    bindings.update_binding(session, ALICE, binding_id=binding_id, changes={"status": "active"})
    assert retry_notification(session, ALICE, notification_id=suppressed.id)["status"] == "queued"
    assert events(session)[-2:] == ["BindingUpdated", "NotificationRetried"]


def device_rule(session: Session, binding_id: str, enabled: bool = True) -> Any:
    large_change: Any = {"enabled": True, "threshold": "1000.00"}
    return bindings.change_rules(
        session, ALICE, binding_id=binding_id, large_change=large_change, device={"enabled": enabled}
    )


def edge(merchant_id: str = "mer_a", **fields: Any) -> dict[str, Any]:
    seen_at = "2026-11-24T08:00:00Z"
    facts = {"device_id": "dev_1", "name": "Till 1", "last_seen_at": seen_at, "silent_seconds": 185}
    return {**facts, "merchant_id": merchant_id, **fields}


def test_rule_of_devices_is_set_told_and_left_alone_by_those_who_do_not_name_it(session: Session) -> None:
    binding_id = bind(session)["id"]
    assert device_rule(session, binding_id)["device"] == {"enabled": True}
    assert events(session)[-1] == "NotificationRulesChanged"
    before = events(session)
    large_change: Any = {"enabled": True, "threshold": "1000.00"}
    rules = bindings.change_rules(session, ALICE, binding_id=binding_id, large_change=large_change)
    assert rules["device"] == {"enabled": True}
    assert events(session) == before
    assert device_rule(session, binding_id, enabled=False)["device"] == {"enabled": False}


def test_device_that_goes_and_comes_back_is_told_to_its_merchants_groups_whose_rule_is_on(session: Session) -> None:
    on, off, theirs = bind(session), bind(session, chat_id="-1002"), bind(session, merchant_id="mer_b", chat_id="-1003")
    device_rule(session, on["id"])
    device_rule(session, off["id"], enabled=False)
    device_rule(session, theirs["id"])
    assert queue_device_edge(session, event_id="evt_1", edge=DeviceWentOffline(**edge())) == 1
    assert queue_device_edge(session, event_id="evt_2", edge=DeviceCameOnline(**edge(silent_seconds=4000))) == 1
    assert queue_device_edge(session, event_id="evt_3", edge=DeviceWentOffline(**edge("mer_c"))) == 0
    gone, back = sorted(notifications(session), key=lambda notification: str(notification.event_id))
    assert {gone.chat_id, back.chat_id} == {int(GROUP)}
    assert (gone.type, gone.text.split("\n")) == (
        "device",
        ["Device offline", "Device: Till 1 (dev_1)", "Last heard of: 2026-11-24T08:00:00Z", "Silent for: 185 s"],
    )
    assert back.text.startswith("Device back online\n")


def test_disabled_binding_gets_its_device_messages_suppressed(session: Session) -> None:
    binding_id = bind(session)["id"]
    device_rule(session, binding_id)
    bindings.update_binding(session, ALICE, binding_id=binding_id, changes={"status": "disabled"})
    queue_device_edge(session, event_id="evt_1", edge=DeviceWentOffline(**edge()))
    [suppressed] = notifications(session)
    assert suppressed.status == "suppressed"


def test_card_number_does_not_reach_a_group(session: Session) -> None:
    bind(session)
    queue(session, entry(order_no="4111111111111111"))
    [notification] = notifications(session)
    assert "4111111111111111" not in notification.text
    assert "***1111" in notification.text


def test_deleted_binding_frees_its_group_and_suppresses_what_waits(session: Session) -> None:
    binding_id = bind(session)["id"]
    queue(session, entry())
    bindings.delete_binding(session, BOB, binding_id=binding_id)
    [left] = notifications(session)
    assert left.status == "suppressed"
    assert session.get(Binding, binding_id) is None
    assert events(session)[-1] == "BindingDeleted"
    with pytest.raises(BindingNotFound):
        retry_notification(session, BOB, notification_id=left.id)
    bind(session, merchant_id="mer_b")


def test_sent_notification_is_not_sent_again(session: Session) -> None:
    notification_id = queue_test(session, ALICE, binding_id=bind(session)["id"])["id"]
    notification = session.get_one(Notification, notification_id)
    notification.status, notification.message_id = "sent", 7
    session.flush()
    with pytest.raises(NotificationAlreadySent):
        retry_notification(session, ALICE, notification_id=notification_id)


def test_update_that_changes_nothing_is_not_told(session: Session) -> None:
    binding_id = bind(session)["id"]
    before = events(session)
    bindings.update_binding(session, ALICE, binding_id=binding_id, changes={"title": "Northwind"})
    assert events(session) == before
    updated = bindings.update_binding(
        session, ALICE, binding_id=binding_id, changes={"title": "Southwind", "language": "zh"}
    )
    assert (updated["title"], updated["language"]) == ("Southwind", "zh")
    assert events(session) == [*before, "BindingUpdated"]


def test_pages_of_a_list_hold_each_row_once(session: Session) -> None:
    ids = [bind(session, chat_id=str(-n))["id"] for n in range(1, 6)]
    seen: list[str] = []
    cursor = None
    while True:
        page = queries.list_bindings(session, ALICE, **ALL | {"limit": 2, "cursor": cursor})
        seen += [binding["id"] for binding in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(ids, reverse=True)
    with pytest.raises(InvalidCursor):
        queries.list_bindings(session, ALICE, **ALL | {"cursor": "nonsense"})


def test_filters_narrow_a_list(session: Session) -> None:
    binding_id = bind(session)["id"]
    bind(session, merchant_id="mer_b", chat_id="-2")
    queue(session, entry())
    queue_test(session, ALICE, binding_id=binding_id)
    for filters, count in (
        ({"type": "test"}, 1),
        ({"status": "queued"}, 2),
        ({"status": "dead"}, 0),
        ({"binding_id": binding_id}, 2),
        ({"merchant_id": "mer_b"}, 0),
    ):
        page = queries.list_notifications(session, ALICE, **ALL_NOTIFICATIONS | filters)
        assert len(page["items"]) == count, filters
    assert len(queries.list_bindings(session, ALICE, **ALL | {"merchant_id": "mer_b"})["items"]) == 1
    assert queries.list_bindings(session, ALICE, **ALL | {"status": "disabled"})["items"] == []
