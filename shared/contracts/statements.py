"""What others may know of statements, the files in which payment platforms say what they did: views, errors, events."""

from dataclasses import dataclass
from typing import ClassVar, Final, TypedDict

from shared.errors import Conflict, InvalidRequest, NotFound, PayloadTooLarge, PermissionDenied
from shared.events import Event

STATEMENT_FORMATS: Final = ("csv", "mt940", "camt.053")
STATEMENT_STATUSES: Final = ("receiving", "importing", "imported", "refused", "abandoned")
RECORD_STATUSES: Final = ("pending", "success", "failed", "refunded")
RECORD_SOURCES: Final = ("statement", "callback", "query", "correction")
CHUNK_BYTES_MAX: Final = 1024 * 1024
STATEMENT_BYTES_MAX: Final = 512 * 1024 * 1024
FAULTS_KEPT_MAX: Final = 100


class FaultView(TypedDict):
    """What is wrong with a row: `line` counts from 1, `column` is the file's own name of it if one is to blame."""

    line: int
    column: str | None
    message: str


class StatementView(TypedDict):
    """A statement. `rows_done` have been read so far; of them new, changed, refused, and the rest said nothing new.

    `faults` are the first hundred.
    """

    statement_id: str
    channel: str
    format: str
    filename: str | None
    sha256: str | None
    size_bytes: int
    partial: bool
    status: str
    percent_done: int
    rows_done: int
    rows_new: int
    rows_changed: int
    rows_unchanged: int
    rows_refused: int
    faults: list[FaultView]
    first_occurred_at: str | None
    last_occurred_at: str | None
    operator: str
    created_at: str
    finished_at: str | None


class StatementPage(TypedDict):
    """One page of statements, newest first."""

    items: list[StatementView]
    next_cursor: str | None


class UpstreamRecordView(TypedDict):
    """What a payment platform says of one payment. A record that was `voided` counts for nothing.

    `line` is that of the statement.
    """

    channel: str
    upstream_ref: str
    order_no: str | None
    amount: str
    fee: str
    currency: str
    status: str
    occurred_at: str
    source: str
    statement_id: str | None
    line: int | None
    voided: bool


class UpstreamRecordPage(TypedDict):
    """One page of upstream records, in the order in which they came in."""

    items: list[UpstreamRecordView]
    next_cursor: str | None


class StatementNotFound(NotFound):
    """There is no such statement."""


class StatementsAreForAll(PermissionDenied):
    """A statement is of all merchants, so it is for those who see all merchants."""


class StatementAlreadyImported(Conflict):
    """This very file was taken before for this channel."""


class StatementNotReceiving(Conflict):
    """This upload is over."""


class StatementIncomplete(Conflict):
    """A piece of this upload is missing."""


class StatementEmpty(InvalidRequest):
    """The file is empty."""


class StatementInvalid(InvalidRequest):
    """Rows of this statement are wrong, so nothing of it was kept."""


class StatementTooLarge(PayloadTooLarge):
    """A statement has at most 512 MiB."""


@dataclass(frozen=True, kw_only=True)
class _OfStatement:
    """What every event about one statement says."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "statement"

    statement_id: str
    channel: str
    format: str
    filename: str | None
    sha256: str
    rows_refused: int


@dataclass(frozen=True, kw_only=True)
class StatementImported(_OfStatement, Event):
    """A statement was imported; a partial one without the rows that were refused."""

    rows_done: int
    rows_new: int
    rows_changed: int
    first_occurred_at: str | None
    last_occurred_at: str | None


@dataclass(frozen=True, kw_only=True)
class StatementRefused(_OfStatement, Event):
    """A statement was refused for its faults, of which the first is told; nothing of it was kept."""

    fault: str
