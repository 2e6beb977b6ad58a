"""The rules of telegram: which changes are large, what a group reads, how long to wait. Pure: no session, no clock."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from shared.contracts.telegram import InvalidChatId, InvalidThreshold

FAILURES_MAX = 12
BACKOFF_SECONDS_MAX = 300
FIELD_CHARACTERS_MAX = 200
_CHAT_ID = re.compile(r"-?[1-9][0-9]{0,15}", re.ASCII)
_THRESHOLD = re.compile(r"(0|[1-9][0-9]{0,13})(\.[0-9]{1,6})?", re.ASCII)


@dataclass(frozen=True)
class Rate:
    """So many messages at once after a silence, then one in each interval."""

    burst: int
    interval_seconds: float

    @property
    def tolerance_seconds(self) -> float:
        """How far ahead of its time a message may go."""
        return (self.burst - 1) * self.interval_seconds


# Telegram's limits: about 30 messages a second over all chats, 20 a minute in a group, one a second in a chat,
# above which short bursts are let through. In any minute 5 + 60 / 4 = 20 go to a chat, in any second 5 + 25 to all.
# Source: Telegram's Bots FAQ, "My bot is hitting limits, how do I avoid this?".
CHAT_RATE = Rate(burst=5, interval_seconds=4.0)
ALL_CHATS_RATE = Rate(burst=5, interval_seconds=0.04)


def parse_chat_id(text: str) -> int:
    """Return the number of a chat id. Raises: InvalidChatId."""
    if not _CHAT_ID.fullmatch(text):
        raise InvalidChatId.of_field("chat_id", InvalidChatId.title)
    return int(text)


def parse_threshold(text: str, field: str) -> Decimal:
    """Return a threshold's amount. Raises: InvalidThreshold, blaming `field`."""
    amount = Decimal(text) if _THRESHOLD.fullmatch(text) else Decimal(0)
    if amount <= 0:
        raise InvalidThreshold.of_field(field, InvalidThreshold.title)
    return amount


def threshold_text(threshold: Decimal) -> str:
    """Return a threshold with at least two fraction digits and no idle zeros beyond them."""
    whole, _, fraction = f"{threshold:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def is_large(amount: str, threshold: Decimal) -> bool:
    """Return whether a change, in or out, reaches the threshold."""
    return abs(Decimal(amount)) >= threshold


def backoff_seconds(failures: int) -> int:
    """Return how long to wait after so many failures: 2, 4, 8 … 300."""
    return min(int(2 ** min(failures, 30)), BACKOFF_SECONDS_MAX)


_LABELS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "large_change": "Large balance change",
        "user": "User",
        "merchant_account": "the merchant's own account",
        "type": "Type",
        "amount": "Amount",
        "balance": "Balance after",
        "order_no": "Order",
        "adjustment": "Balance adjusted by the platform",
        "reason": "Reason",
        "time": "Time",
        "device_offline": "Device offline",
        "device_online": "Device back online",
        "device": "Device",
        "last_seen": "Last heard of",
        "heard_again": "Heard of again",
        "silent": "Silent for",
        "test": "This group receives the notifications of Countinghouse. This is a test.",
        "repeat": "Sent again, since Telegram did not answer the first time. You may have this message already.",
    },
    "zh": {
        "large_change": "大额余额变动",
        "user": "用户",
        "merchant_account": "商户自有账户",
        "type": "类型",
        "amount": "金额",
        "balance": "变动后余额",
        "order_no": "订单号",
        "adjustment": "平台调整余额",
        "reason": "原因",
        "time": "时间",
        "device_offline": "设备离线",
        "device_online": "设备恢复在线",
        "device": "设备",
        "last_seen": "最后一次收到心跳",
        "heard_again": "再次收到心跳",
        "silent": "静默时长",
        "test": "本群组将接收 Countinghouse 的通知。这是一条测试消息。",
        "repeat": "由于 Telegram 上次没有应答，此消息重新发送，您可能已经收到过。",
    },
}


def large_change_text(change: Mapping[str, Any], language: str) -> str:
    """Return what a group reads of a large change: an entry of the ledger as its contract shows it."""
    return "\n".join(_change_lines("large_change", change, language))


def adjustment_text(change: Mapping[str, Any], language: str) -> str:
    """Return what a group reads of a balance that was adjusted: the entry, and why. Who did it stays in the house."""
    why = f"{_LABELS[language]['reason']}: {_shortened(change['reason'] or '')}"
    return "\n".join([*_change_lines("adjustment", change, language), why])


def _change_lines(title: str, change: Mapping[str, Any], language: str) -> list[str]:
    label = _LABELS[language]
    amount, currency = str(change["amount"]), change["currency"]
    lines = [
        label[title],
        f"{label['user']}: {_shortened(change['user_id'] or label['merchant_account'])}",
        f"{label['type']}: {change['type']} {change['group']} / {change['type_name']}",
        f"{label['amount']}: {amount if amount.startswith('-') else f'+{amount}'} {currency}",
        f"{label['balance']}: {change['balance']} {currency}",
    ]
    if change["order_no"]:
        lines.append(f"{label['order_no']}: {_shortened(change['order_no'])}")
    return [*lines, f"{label['time']}: {change['time']}"]


def device_text(edge: Mapping[str, Any], language: str, *, is_offline: bool) -> str:
    """Return what a group reads of a device that went offline or is back: the event as its contract shows it."""
    label = _LABELS[language]
    lines = [
        label["device_offline" if is_offline else "device_online"],
        f"{label['device']}: {_shortened(edge['name'])} ({edge['device_id']})",
        f"{label['last_seen' if is_offline else 'heard_again']}: {edge['last_seen_at']}",
        f"{label['silent']}: {edge['silent_seconds']} s",
    ]
    return "\n".join(lines)


def test_text(language: str) -> str:
    """Return what a group reads of a test."""
    return _LABELS[language]["test"]


def repeated_text(text: str, language: str) -> str:
    """Return a message with the remark that the group may have it already."""
    return f"{text}\n\n{_LABELS[language]['repeat']}"


def _shortened(text: str) -> str:
    return text if len(text) <= FIELD_CHARACTERS_MAX else f"{text[: FIELD_CHARACTERS_MAX - 1]}…"
