"""Checks the stored rows against their hash chain: what was changed, removed, inserted or cut off is found.

What the database's superuser rewrites from some row to the end, head included, holds together again: only a copy of
a hash kept elsewhere tells. Every report of `verify_chain` that is kept, and every exported row, is such a copy.
"""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.audit.domain.chain import GENESIS, ChainWalk, Head, Link
from services.audit.models import SELECTED, link_of
from services.audit.queries import instant_of
from shared.contracts.audit import CHAIN_BREAKS_MAX, ChainBreak, ChainReport
from shared.errors import PermissionDenied
from shared.passport import Passport

ROWS_PER_CALL_MAX: Final = 50_000  # one to two seconds; the caller goes on at `next_seq`
ROWS_PER_READ: Final = 2_000


def verify_chain(
    session: Session,
    passport: Passport,
    *,
    from_time: str | None = None,
    to_time: str | None = None,
    from_seq: int | None = None,
) -> ChainReport:
    """Check a range of the chain, at most `ROWS_PER_CALL_MAX` rows of it, with the links at both its ends.

    from_time, to_time: the range holds every row of this time; without them, the whole chain.
    from_seq: where to go on, as the last report's `next_seq` said.
    Returns: ChainReport; `ok` is of the rows that this call checked.
    Raises: PermissionDenied for who does not see all merchants, since the chain runs through everybody's rows.
    """
    if passport.merchant_filter() is not None:
        raise PermissionDenied("The chain runs through the rows of all merchants.", missing="all merchants")
    head, seq_highest = _head_and_highest(session)
    first, last = _range(session, head, from_time, to_time)
    first = max(first, from_seq or 1)
    upto = min(last, first + ROWS_PER_CALL_MAX - 1)
    walk = ChainWalk(seq_first=first, seq_last=upto, hash_before=_hash_before(session, first))
    for link in _links(session, first, upto):
        walk.step(link)
        if len(walk.breaks) > CHAIN_BREAKS_MAX:
            break
    else:
        walk.end(head if upto == head.seq else None)
    breaks = walk.breaks[:CHAIN_BREAKS_MAX]
    if upto == head.seq and seq_highest > head.seq:
        breaks.append(_beyond(head, seq_highest))
    return {
        "ok": not breaks,
        "checked": walk.checked,
        "first_broken": breaks[0] if breaks else None,
        "broken": breaks,
        "next_seq": upto + 1 if upto < last and len(walk.breaks) <= CHAIN_BREAKS_MAX else None,
    }


def _hash_before(session: Session, seq: int) -> bytes | None:
    if seq == 1:
        return GENESIS
    found = session.scalar(text("select hash from log_rows where seq = :seq limit 1"), {"seq": seq - 1})
    return None if found is None else bytes(found)


def _head_and_highest(session: Session) -> tuple[Head, int]:
    """Return the chain's head and the highest row, by one statement, so that no batch comes in between."""
    row = session.execute(
        text(
            "select coalesce(max(s.last_seq), 0) as last_seq, max(encode(s.last_hash, 'hex')) as last_hash,"
            " (select coalesce(max(seq), 0) from log_rows) as seq_highest from chain_state s"
        )
    ).one()
    return Head(row.last_seq, bytes.fromhex(row.last_hash or GENESIS.hex())), row.seq_highest


def _range(session: Session, head: Head, from_time: str | None, to_time: str | None) -> tuple[int, int]:
    """Return the numbers to check: all rows of the time, with the row before and the row after as witnesses."""
    if from_time is None and to_time is None:
        return 1, head.seq
    bounds = {
        "from_time": instant_of("from", from_time) if from_time else None,
        "to_time": instant_of("to", to_time) if to_time else None,
    }
    lowest, highest = session.execute(_EXTENT, bounds).one()
    if lowest is None:
        # No row is there now. What was there stood between the last row before this time and the first after it.
        before, after = session.execute(_AROUND_TIME, bounds).one()
    else:
        before, after = session.execute(_AROUND_NUMBERS, {"lowest": lowest, "highest": highest}).one()
    return before or 1, min(head.seq, after or head.seq)


_EXTENT: Final = text(
    "select min(seq), max(seq) from log_rows"
    " where time >= coalesce(cast(:from_time as timestamptz), '-infinity')"
    " and time < coalesce(cast(:to_time as timestamptz), 'infinity')"
)
_AROUND_TIME: Final = text(
    "select (select max(seq) from log_rows where time < cast(:from_time as timestamptz)),"
    " (select min(seq) from log_rows where time >= cast(:to_time as timestamptz))"
)
_AROUND_NUMBERS: Final = text(
    "select (select max(seq) from log_rows where seq < :lowest), (select min(seq) from log_rows where seq > :highest)"
)


def _links(session: Session, first: int, last: int) -> Iterator[Link]:
    # Read by ranges of numbers and not by so many rows at a time, so that no second row of a number is stepped over.
    statement = text(f"select {SELECTED} from log_rows l where seq between :first and :last order by seq, time")
    for start in range(first, last + 1, ROWS_PER_READ):
        bounds: dict[str, Any] = {"first": start, "last": min(last, start + ROWS_PER_READ - 1)}
        for row in session.execute(statement, bounds).mappings():
            yield link_of(row)


def _beyond(head: Head, seq_highest: int) -> ChainBreak:
    return {
        "kind": "inserted",
        "seq": head.seq + 1,
        "seq_last": seq_highest,
        "detail": "There are rows beyond the chain's end.",
    }
