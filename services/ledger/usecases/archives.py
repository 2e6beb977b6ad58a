"""Archiving: a month's entries leave the log for compressed parts, and what is left still proves.

All of it is one transaction: at no instant is an entry in neither of both, or in both.
See docs/decisions/0024-archives-are-rows.md.
"""

import gzip
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from hashlib import sha256
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from services.ledger.domain.archives import (
    COLUMNS,
    Chains,
    Opening,
    chained,
    entries_of,
    is_due,
    is_over,
)
from services.ledger.domain.entries import Entry
from services.ledger.domain.orders import REFUND_TYPES
from services.ledger.models.archives import archive_parts, archive_view, archived_openings, archives, sealed
from services.ledger.models.entries import entries
from services.ledger.row_digests import inserting
from services.ledger.usecases.closed_days import SETTLING_TIME
from shared import outbox
from shared.contracts.archives import (
    ArchiveView,
    ArchivingRunning,
    EntriesArchived,
    LogNotProved,
    MonthEmpty,
    MonthNotNext,
    MonthNotOver,
)
from shared.database import LOCK_NOT_AVAILABLE, sqlstate
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.times import utc_now

PART_ENTRIES: Final = 20_000
CHECKED_AT_ONCE: Final = 500
STATEMENT_SECONDS_MAX: Final = 3600
LOCK_SECONDS_MAX: Final = 5  # whoever reads the month for longer is not waited for: it leaves another time

# The partitions are months of UTC.
_IN_MONTH = "created_at >= {0} and created_at < {0} + interval '1 month'"
_EXPRESSIONS = {
    "digest": "encode(digest, 'hex')",
    "at_microseconds": "(extract(epoch from created_at) * 1000000)::bigint",
}
_COPY_PART = (
    f"copy (select {', '.join(_EXPRESSIONS.get(column, column) for column in COLUMNS)} from entries"
    f" where {_IN_MONTH.format('%(month)s::timestamptz')} and (account_id, version) > (%(account_id)s, %(version)s)"
    " order by account_id, version limit %(limit)s) to stdout (format csv)"
)
_TOTALS = f"""
insert into archive_totals (archive_id, quarter, merchant_id, currency, type, counter_account, channel, entries,
    increase, decrease)
select :archive_id, date_bin('15 minutes', created_at, timestamptz 'epoch'), merchant_id, currency, type,
       counter_account, channel, count(*),
       coalesce(sum(amount) filter (where amount > 0), 0), coalesce(sum(amount) filter (where amount < 0), 0)
  from entries where {_IN_MONTH.format("cast(:month as timestamptz)")}
 group by 2, 3, 4, 5, 6, 7
"""
_INSERT = sa.text(
    inserting(
        archives,
        now="archived_at",
        digests={"digest": "new.digest", "row_digest": sealed("new")},
    )
)
_REFUNDS = f"""
insert into archived_refunds as r (merchant_id, order_no, currency, amount)
select merchant_id, order_no, currency, sum(amount) from entries
 where {_IN_MONTH.format("cast(:month as timestamptz)")} and type = any(:types) and order_no is not null
 group by 1, 2, 3
    on conflict on constraint pk_archived_refunds do update set amount = r.amount + excluded.amount
"""


def check_month(text: Any) -> date:
    """Return the first day of a month such as "2026-10". Raises: InvalidRequest."""
    try:
        if len(text) != len("2026-10"):
            raise ValueError
        return date.fromisoformat(f"{text}-01")
    except (TypeError, ValueError):
        raise InvalidRequest.of_field("month", "Must be a month such as 2026-10.") from None


def due_month(session: Session, *, retention_months: int) -> date | None:
    """Return the oldest month of the log if it is older than the log keeps its entries."""
    month = _oldest_month(session)
    if month is None or not is_due(month, utc_now().date(), retention_months=retention_months):
        return None
    return month


def archive_entries(
    session: Session, *, month: date, reason: str, actor_id: str, actor_name: str, today: date | None = None
) -> ArchiveView:
    """Move a month's entries from the log into an archive, proving each of them on its way.

    month: its first day, in UTC.
    Raises, in order: MonthNotOver; ArchivingRunning; MonthEmpty; MonthNotNext; LogNotProved.
    Emits: EntriesArchived.
    Locks: archiving; at its end, for as long as dropping a table takes, the whole log.
    """
    # What was posted in the month's last instant is to be seen by then.
    if not is_over(month, today or (utc_now() - SETTLING_TIME).date()):
        raise MonthNotOver
    _begin(session)
    session.execute(sa.text("select prepare_archiving(:month)"), {"month": month})
    oldest = _oldest_month(session)
    if oldest is None or oldest > month:
        raise MonthEmpty
    if oldest < month:
        raise MonthNotNext(f"{oldest:%Y-%m} comes first.", month=f"{oldest:%Y-%m}")
    archive_id = new_id("arc")
    previous = session.execute(sa.select(archives).order_by(archives.c.number.desc()).limit(1)).first()
    parts, accounts = _archive_parts(session, archive_id, month)
    session.execute(sa.text(_TOTALS), {"archive_id": archive_id, "month": month})
    session.execute(sa.text(_REFUNDS), {"month": month, "types": sorted(REFUND_TYPES)})
    digest = chained(previous.digest if previous else None, [part["sha256"] for part in parts])
    values = {
        "id": archive_id,
        "number": previous.number + 1 if previous else 1,
        "month": month,
        "entries": sum(part["entries"] for part in parts),
        "accounts": accounts,
        "parts": len(parts),
        "size_bytes": sum(part["size_bytes"] for part in parts),
        "digest": digest,
        "previous_digest": previous.digest if previous else None,
        "reason": reason,
        "actor_id": actor_id,
        "actor_name": actor_name,
        "archived_at": None,
    }
    row = session.execute(_INSERT, values).one()
    _drop_archived(session, archive_id)
    view = archive_view(row)
    outbox.add(
        session,
        EntriesArchived(
            archive_id=archive_id,
            month=view["month"],
            entries=view["entries"],
            accounts=accounts,
            digest=view["digest"],
            reason=reason,
        ),
    )
    return view


def _drop_archived(session: Session, archive_id: str) -> None:
    try:
        session.execute(sa.text("select drop_archived_partition(:archive_id)"), {"archive_id": archive_id})
    except OperationalError as error:
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        raise ArchivingRunning("Somebody reads this month right now.", retry_after_seconds=60) from error


def _begin(session: Session) -> None:
    session.execute(sa.text(f"set local statement_timeout = '{STATEMENT_SECONDS_MAX}s'"))
    session.execute(sa.text(f"set local lock_timeout = '{LOCK_SECONDS_MAX}s'"))
    if not session.execute(sa.text("select pg_try_advisory_xact_lock(hashtext('archive_entries'))")).scalar_one():
        raise ArchivingRunning(retry_after_seconds=60)


def _oldest_month(session: Session) -> date | None:
    oldest = session.execute(sa.select(sa.func.min(entries.c.created_at))).scalar_one()
    return None if oldest is None else date(oldest.year, oldest.month, 1)


def _archive_parts(session: Session, archive_id: str, month: date) -> tuple[list[dict[str, Any]], int]:
    """Write the parts of a month and the openings after it. Returns: what each part is, and how many accounts.

    Raises: LogNotProved.
    """
    parts: list[dict[str, Any]] = []
    accounts, last_account = 0, 0
    for content, rows in _contents(session, month):
        chains = Chains(_openings(session, rows))
        for n, row in enumerate(rows):
            fault = chains.add(row)
            if fault is not None:
                raise LogNotProved(fault)
            if n % CHECKED_AT_ONCE == 0:
                time.sleep(0)  # lets others run in between
        _write_openings(session, chains)
        accounts += len(chains.changed) - (last_account in chains.changed)
        last_account = rows[-1].account_id
        compressed = gzip.compress(content, mtime=0)
        values = {
            "archive_id": archive_id,
            "part": len(parts) + 1,
            "first_account_id": rows[0].account_id,
            "last_account_id": last_account,
            "entries": len(rows),
            "sha256": sha256(content).digest(),
        }
        session.execute(sa.insert(archive_parts).values(values | {"content": compressed}))
        parts.append(values | {"size_bytes": len(compressed)})
    return parts, accounts


def _contents(session: Session, month: date) -> Iterator[tuple[bytes, list[Entry]]]:
    """Return the CSV of a month's entries, a part each, with its rows."""
    place = {"month": month, "account_id": 0, "version": 0, "limit": PART_ENTRIES}
    while True:
        cursor = session.connection().connection.cursor()
        with cursor.copy(_COPY_PART, place) as copy:
            content = b"".join(copy)
        rows = list(entries_of(content))
        if not rows:
            return
        yield content, rows
        place |= {"account_id": rows[-1].account_id, "version": rows[-1].version}


def _openings(session: Session, rows: list[Entry]) -> dict[int, Opening]:
    c = archived_openings.c
    known = session.execute(
        sa.select(archived_openings).where(c.account_id.between(rows[0].account_id, rows[-1].account_id))
    )
    return {row.account_id: Opening(row.version, row.balance, row.digest, row.holder) for row in known}


def _write_openings(session: Session, chains: Chains) -> None:
    values = [
        {"account_id": account_id, **asdict(o)}
        for account_id, o in sorted(chains.openings.items())
        if account_id in chains.changed
    ]
    statement = insert(archived_openings)
    session.execute(
        statement.on_conflict_do_update(
            constraint="pk_archived_openings",
            set_={name: statement.excluded[name] for name in ("version", "balance", "digest", "holder")},
        ),
        values,
    )
