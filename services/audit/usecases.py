"""What the audit service does: write the rows that events make, each once, at the end of the chain."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.audit.domain.chain import Head, Link, seal
from services.audit.domain.rows import LogContent, contents_of, instant_of
from services.audit.models import COLUMNS, copied_row
from shared.events import Envelope
from shared.times import utc_now

ROWS_PER_COPY: Final = 2_000  # an event may carry 500 entries: neither memory nor the loop waits for a whole batch
MONTHS_AHEAD: Final = 2

_COPY: Final = f"copy log_rows ({', '.join(COLUMNS)}) from stdin"


def record_events(session: Session, envelopes: Sequence[Envelope]) -> int:
    """Write the rows of events at the end of the chain, in one transaction.

    Returns: how many rows were written; an event that has been written already adds none.
    Locks: the chain's head, so that one writer at a time numbers rows, without a gap.
    Idempotent: on event_id, as a belt beside the kernel's inbox.
    """
    if not envelopes:
        return 0
    head = _locked_head(session)
    rows = _rows_of_new_events(session, envelopes)
    first_seq = head.seq + 1
    while chunk := list(islice(rows, ROWS_PER_COPY)):
        links = seal(head, chunk)
        _make_partitions(session, {link.content["time"][:7] for link in links})
        _copy_rows(session, links)
        head = Head(links[-1].content["seq"], links[-1].hash)
    written = head.seq + 1 - first_seq
    if written:
        session.execute(
            text("update chain_state set last_seq = :seq, last_hash = :hash, updated_at = clock_timestamp()"),
            {"seq": head.seq, "hash": head.hash},
        )
    return written


def _locked_head(session: Session) -> Head:
    row = session.execute(text("select last_seq, last_hash from chain_state for update")).one()
    return Head(row.last_seq, bytes(row.last_hash))


def _rows_of_new_events(session: Session, envelopes: Sequence[Envelope]) -> Iterator[LogContent]:
    by_id = {envelope["event_id"]: envelope for envelope in envelopes}
    written = _written_events(session, by_id.values())
    for event_id, envelope in by_id.items():
        if event_id not in written:
            yield from contents_of(envelope)


def _written_events(session: Session, envelopes: Collection[Envelope]) -> set[str]:
    # Under the head's lock nobody else writes, so what is not there now will not be there at the insert. An event
    # that comes again has the time that it had, so only the partitions of these times are looked through.
    times = sorted(instant_of(envelope) for envelope in envelopes)
    statement = text(
        "select event_id from log_rows"
        " where event_id = any(:event_ids) and time between cast(:first as timestamptz) and cast(:last as timestamptz)"
    )
    event_ids = [envelope["event_id"] for envelope in envelopes]
    return set(session.scalars(statement, {"event_ids": event_ids, "first": times[0], "last": times[-1]}))


def _copy_rows(session: Session, links: Sequence[Link]) -> None:
    driver: Any = session.connection().connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        for link in links:
            copy.write_row(copied_row(link))


def make_partitions(session: Session) -> None:
    """Make this month's partition and those of the coming months, where they lack."""
    now = utc_now()
    _make_partitions(session, {_month_after(now, months) for months in range(MONTHS_AHEAD + 1)})


def _make_partitions(session: Session, months: Iterable[str]) -> None:
    """Make the partition of each month, such as "2026-11", that has none."""
    for month in sorted(months):
        session.execute(text("select make_log_partition(cast(:first_day as date))"), {"first_day": f"{month}-01"})


def _month_after(now: datetime, months: int) -> str:
    year, month = divmod(now.year * 12 + now.month - 1 + months, 12)
    return f"{year:04}-{month + 1:02}"
