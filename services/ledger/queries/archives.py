"""Reads of archives: the list of them, their entries cut to the caller's merchants, and the proof of one."""

import gzip
from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.archives import Chains, Opening, chained, entries_of, holder_of
from services.ledger.domain.entries import Entry, view_of
from services.ledger.models.archives import archive_parts, archive_view, archived_openings, archives
from services.ledger.models.entries import accounts
from services.ledger.queries.pages import position
from shared.contracts.archives import (
    ArchivedEntryPage,
    ArchiveNotFound,
    ArchivePage,
    ArchiveProofView,
    ArchiveView,
)
from shared.errors import PermissionDenied
from shared.paging import encode_cursor
from shared.passport import Passport

PARTS_READ_MAX: Final = 10  # in one page: a page may be short, so that it never takes long
FAULTS_SHOWN_MAX: Final = 100


def list_archives(session: Session, passport: Passport, *, limit: int, cursor: str | None) -> ArchivePage:
    """Return one page of archives, the newest first. Raises: PermissionDenied, InvalidCursor."""
    _require_all_merchants(passport)
    query = sa.select(archives).order_by(archives.c.number.desc()).limit(limit + 1)
    if cursor:
        [number] = position(cursor, length=1)
        query = query.where(archives.c.number < number)
    rows = session.execute(query).all()
    shown = rows[:limit]
    return {
        "items": [archive_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].number]) if len(rows) > limit else None,
    }


def get_archive(session: Session, passport: Passport, *, archive_id: str) -> ArchiveView:
    """Return one archive. Raises: PermissionDenied, ArchiveNotFound."""
    return archive_view(_archive(session, passport, archive_id))


def verify_archive(session: Session, passport: Passport, *, archive_id: str) -> ArchiveProofView:
    """Read an archive back from end to end: its digests, its entries' chains, and where the accounts go on.

    Raises: PermissionDenied, ArchiveNotFound.
    """
    archive = _archive(session, passport, archive_id)
    faults: list[str] = []
    chains = Chains(_openings_before(session, archive))
    digests = []
    for part in _parts(session, archive.id):
        content = gzip.decompress(part.content)
        digests.append(part.sha256)
        if sha256(content).digest() != part.sha256:
            faults.append(f"Part {part.part} is not what was archived.")
        faults += [fault for row in entries_of(content) if (fault := chains.add(row)) is not None]
    if chained(archive.previous_digest, digests) != archive.digest:
        faults.append("The parts are not those that were archived.")
    if chains.entries != archive.entries:
        faults.append(f"It has {chains.entries} entries; {archive.entries} were archived.")
    if _is_last(session, archive):
        faults += _opening_faults(session, chains)
    return {
        "archive_id": archive.id,
        "ok": not faults,
        "entries": chains.entries,
        "faults": faults[:FAULTS_SHOWN_MAX],
    }


def list_archived_entries(
    session: Session,
    passport: Passport,
    *,
    month: date,
    limit: int,
    cursor: str | None,
    user_id: str | None = None,
    merchant_id: str | None = None,
    order_no: str | None = None,
) -> ArchivedEntryPage:
    """Return one page of a month's archived entries, by account and version. Raises: InvalidCursor."""
    number, part_number, skipped = position(cursor, length=3) if cursor else (0, 0, 0)
    holders = None if user_id is None else _account_ids(session, user_id)
    wanted = {"holder_id": user_id, "merchant_id": merchant_id, "order_no": order_no}
    found: list[Entry] = []
    parts = _parts_from(session, month, (number, part_number), holders)
    for part in parts[:PARTS_READ_MAX]:
        start = skipped if (part.number, part.part) == (number, part_number) else 0
        for n, row in enumerate(entries_of(gzip.decompress(part.content))):
            if n < start or not passport.sees(row.merchant_id) or not _is_wanted(row, wanted):
                continue
            if len(found) == limit:
                return _page(found, [part.number, part.part, n])
            found.append(row)
    following = parts[PARTS_READ_MAX] if len(parts) > PARTS_READ_MAX else None
    return _page(found, None if following is None else [following.number, following.part, 0])


def _page(rows: list[Entry], place: list[int] | None) -> ArchivedEntryPage:
    return {
        "items": [view_of(row) for row in rows],
        "next_cursor": None if place is None else encode_cursor(place),
    }


def _is_wanted(row: Entry, wanted: dict[str, str | None]) -> bool:
    if wanted["holder_id"] is not None and row.holder_type != "user":
        return False
    return all(value is None or getattr(row, name) == value for name, value in wanted.items())


def _account_ids(session: Session, user_id: str) -> list[int]:
    c = accounts.c
    return list(session.scalars(sa.select(c.id).where(c.holder_id == user_id, c.holder_type == "user")))


def _parts_from(session: Session, month: date, place: tuple[int, int], account_ids: list[int] | None) -> list[Any]:
    c = archive_parts.c
    conditions = [archives.c.month == month, sa.tuple_(archives.c.number, c.part) >= place]
    if account_ids is not None:
        conditions.append(sa.or_(sa.false(), *(_holds(account_id) for account_id in account_ids)))
    query = sa.select(archives.c.number, archive_parts).join(archives, archives.c.id == c.archive_id)
    query = query.where(*conditions).order_by(archives.c.number, c.part).limit(PARTS_READ_MAX + 1)
    return list(session.execute(query))


def _holds(account_id: int) -> sa.ColumnElement[bool]:
    return sa.literal(account_id, sa.BigInteger).between(
        archive_parts.c.first_account_id, archive_parts.c.last_account_id
    )


def _parts(session: Session, archive_id: str) -> Iterator[Any]:
    """Return the parts of an archive one by one: an archive may be larger than the memory."""
    query = sa.select(archive_parts).where(archive_parts.c.archive_id == archive_id).order_by(archive_parts.c.part)
    yield from session.execute(query.execution_options(yield_per=1))


def _require_all_merchants(passport: Passport) -> None:
    if passport.merchants is not None:
        raise PermissionDenied("An archive is of all merchants.")


def _archive(session: Session, passport: Passport, archive_id: str) -> Any:
    _require_all_merchants(passport)
    row = session.execute(sa.select(archives).where(archives.c.id == archive_id)).first()
    if row is None:
        raise ArchiveNotFound
    return row


def _is_last(session: Session, archive: Any) -> bool:
    return bool(session.execute(sa.select(sa.func.max(archives.c.number))).scalar_one() == archive.number)


def _openings_before(session: Session, archive: Any) -> dict[int, Opening]:
    """Return where accounts stood before an archive, read off the archives before it."""
    openings: dict[int, Opening] = {}
    earlier = sa.select(archives.c.id).where(archives.c.number < archive.number).order_by(archives.c.number)
    for archive_id in session.scalars(earlier).all():
        for part in _parts(session, archive_id):
            for row in entries_of(gzip.decompress(part.content)):
                openings[row.account_id] = Opening(row.version, row.balance_after, row.digest, holder_of(row))
    return openings


def _opening_faults(session: Session, chains: Chains) -> list[str]:
    """Return the accounts that do not go on where the last archive ends."""
    faults = []
    for row in session.execute(sa.select(archived_openings)):
        opening = chains.openings.pop(row.account_id, Opening())
        if Opening(row.version, row.balance, row.digest, row.holder) != opening:
            faults.append(f"Account {row.account_id} does not go on where its archived entries end.")
    return faults + [f"Account {account_id} has no opening." for account_id in chains.openings]
