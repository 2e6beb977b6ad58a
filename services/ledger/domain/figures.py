"""What the finance team's figures are: which balance type counts where, and the seal of a closed day."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from typing import Any, Final

import orjson

from shared.contracts.reconciliations import FiguresView
from shared.money import format_minor
from shared.times import rfc3339

# A type that stands nowhere here counts for the change of the balance alone.
BUCKETS: Final = {
    "recharge": (321,),
    "withdrawal": (322, 334),
    "consumption": (323, 331, 332),
    "resets": (231, 232, 233),
    "refund": (324, 333),
    "fees": (521,),
}
BALANCE: Final = "balance"  # all entries of the period, corrections too, when they were posted


@dataclass(frozen=True, slots=True)
class Period:
    """One day as figures count it: closed days as they were sealed, whatever the zone is now."""

    day: date
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True, order=True)
class Total:
    """How many entries of one bucket, and their sum in minor units, as the balance saw them."""

    merchant_id: str
    currency: str
    channel: str
    bucket: str
    entries: int
    amount: int


def figures_of(totals: Iterable[Total]) -> list[FiguresView]:
    """Return totals as figures, one for each currency and channel."""
    sums: dict[tuple[str, str], dict[str, list[int]]] = {}
    for total in totals:
        entries_and_amount = sums.setdefault((total.currency, total.channel), {}).setdefault(total.bucket, [0, 0])
        entries_and_amount[0] += total.entries
        entries_and_amount[1] += total.amount
    return [_figures(currency, channel, sums[currency, channel]) for currency, channel in sorted(sums)]


def _figures(currency: str, channel: str, buckets: Mapping[str, list[int]]) -> FiguresView:
    def amount(*names: str) -> int:
        return sum(buckets[name][1] for name in names if name in buckets)

    return {
        "currency": currency,
        "channel": channel or None,
        "recharge": format_minor(amount("recharge"), currency),
        "withdrawal": format_minor(-amount("withdrawal"), currency),
        "consumption": format_minor(-amount("consumption", "resets"), currency),
        "refund": format_minor(amount("refund"), currency),
        "fees": format_minor(-amount("fees"), currency),
        "balance_change": format_minor(amount(BALANCE), currency),
        "entries": buckets[BALANCE][0] if BALANCE in buckets else 0,
    }


def differences(now: Iterable[Total], sealed: Iterable[Total]) -> list[Total]:
    """Return what has changed since totals were sealed; nothing where nothing has."""
    sums: dict[tuple[str, str, str, str], list[int]] = {}
    for sign, totals in ((1, now), (-1, sealed)):
        for total in totals:
            place = (total.merchant_id, total.currency, total.channel, total.bucket)
            row = sums.setdefault(place, [0, 0])
            row[0] += sign * total.entries
            row[1] += sign * total.amount
    return [Total(*place, *sums[place]) for place in sorted(sums) if any(sums[place])]


def sealed_rows(totals: Iterable[Total]) -> list[list[Any]]:
    """Return totals as a closed day keeps them, in their one order."""
    return [
        [t.merchant_id, t.currency, t.channel, t.bucket, t.entries, t.amount]
        for t in sorted(totals)
        if t.entries or t.amount
    ]


def seal(
    *,
    period: Period,
    zone_name: str,
    rows: list[list[Any]],
    reason: str,
    actor_id: str,
    actor_name: str,
    previous_digest: bytes | None,
) -> bytes:
    """Return the digest of a closed day: of the day before's, and of what the day says and who closed it why."""
    content = [
        period.day.isoformat(),
        zone_name,
        rfc3339(period.starts_at),
        rfc3339(period.ends_at),
        rows,
        reason,
        actor_id,
        actor_name,
    ]
    return sha256((previous_digest or b"") + orjson.dumps(content)).digest()
