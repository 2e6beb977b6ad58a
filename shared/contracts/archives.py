"""What others may know of the ledger's archives: views, errors, events."""

from dataclasses import dataclass
from typing import ClassVar, TypedDict

from shared.contracts.ledger import EntryView
from shared.errors import Conflict, NotFound
from shared.events import Event


class ArchiveView(TypedDict):
    """A month of entries that left the log. `digest` (hexadecimal) is chained to that of the archive before it."""

    archive_id: str
    number: int
    month: str
    entries: int
    accounts: int
    parts: int
    size_bytes: int
    digest: str
    reason: str
    operator: str
    archived_at: str


class ArchivePage(TypedDict):
    """One page of archives, the newest first."""

    items: list[ArchiveView]
    next_cursor: str | None


class ArchivedEntryPage(TypedDict):
    """One page of an archive's entries, by account and version. A page may be short, or empty, and not the last."""

    items: list[EntryView]
    next_cursor: str | None


class ArchiveProofView(TypedDict):
    """What reading an archive back says: whether it is what was archived, and what is wrong with it."""

    archive_id: str
    ok: bool
    entries: int
    faults: list[str]


class ArchiveNotFound(NotFound):
    """There is no such archive that you may see."""


class MonthNotOver(Conflict):
    """A month is archived when it is over."""


class MonthNotNext(Conflict):
    """Months are archived in their order: an earlier one still has entries in the log."""


class MonthEmpty(Conflict):
    """The log has no entries of this month."""


class ArchivingRunning(Conflict):
    """A month is being archived right now."""


class LogNotProved(Conflict):
    """Entries leave the log only when they prove, and these do not."""


@dataclass(frozen=True, kw_only=True)
class EntriesArchived(Event):
    """A month's entries left the log for an archive."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "archive"

    archive_id: str
    month: str
    entries: int
    accounts: int
    digest: str
    reason: str
