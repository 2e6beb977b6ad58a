"""What the ledger can do: post one change, post a batch, and say which rows of the log a client means."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime
from threading import Semaphore
from typing import Any, Final, Protocol, TypeVar

import orjson
import structlog
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from services.ledger.domain.changes import ADMIN_PERMISSION, Change, check_change
from services.ledger.domain.filters import LogFilter, check_filter
from services.ledger.domain.thresholds import Threshold
from services.ledger.gathering import Gatherer
from services.ledger.posting import Outcome, Posting, PostingRaced, post
from services.ledger.queries.entries import unheard_merchants
from shared.contracts.ledger import BATCH_CHANGES_MAX, EntryView, LedgerBusy, TooManyChanges
from shared.contracts.users import MerchantNotFound
from shared.errors import InternalError, InvalidRequest, ServiceError, Unavailable
from shared.passport import Passport
from shared.rpc.wire import Answer, Call, current_call
from shared.times import day_bounds, parse_rfc3339, today

log = structlog.get_logger(__name__)

ATTEMPTS_MAX: Final = 5
CHECKED_AT_ONCE: Final = 500
SLOT_SECONDS_MAX: Final = 60
UNKNOWN_MERCHANTS_MAX: Final = 20
BROKEN_BY_ONE: Final = (DataError, IntegrityError, ValueError)  # what one of many can do to their statement

Parsed = TypeVar("Parsed")


class Ledger(Protocol):
    """What posting needs of the process: its database, and what it knows of merchants."""

    def run(self, work: Any) -> Any: ...

    def wake_relay(self) -> None: ...

    def ensure_merchants(self, merchant_ids: Iterable[str]) -> None: ...


def post_balance_change(
    ledger: Ledger,
    gatherer: Gatherer[Posting, Outcome],
    call: Call,
    *,
    change: dict[str, Any],
    threshold: Threshold,
) -> Answer:
    """Post one change, together with whatever else waits to be posted.

    Returns: the EntryView.
    Raises, in order: what `check_change` does; MerchantNotFound; IdempotencyInProgress; IdempotencyKeyReused;
    InsufficientBalance; BalanceTooLarge.
    Emits: BalancesChanged, LargeChangeDetected.
    Idempotent: on the call's key; a replay returns the first answer.
    """
    checked = check_change(change, is_admin=call.passport.may(ADMIN_PERMISSION))
    unknown = unknown_merchants(ledger, call.passport, [checked])
    if unknown:
        raise unknown[checked.merchant_id]
    outcome = gatherer.submit(
        Posting(call, [checked], is_batch=False), lambda postings: carry_out(ledger, postings, threshold)
    )
    return _answer(outcome)


def post_balance_changes(
    ledger: Ledger, slots: Semaphore, call: Call, *, changes: Any, is_atomic: bool, threshold: Threshold
) -> Answer:
    """Post a batch of changes in their order.

    slots: as many as batches may be posted at once; the others wait, as long as their callers do.
    is_atomic: whether one refusal refuses all. Otherwise each change stands for itself.
    Returns: the BatchView, as JSON text.
    Raises, in order: TooManyChanges; what is wrong with a change of an atomic batch, with `errors` by
    `changes.<index>.<field>`, or with its `index`; LedgerBusy; IdempotencyInProgress; IdempotencyKeyReused.
    Emits: BalancesChanged for each 500 entries, LargeChangeDetected.
    Idempotent: on the call's key; a replay returns the first answer.
    """
    if type(changes) is not list or not changes:
        raise InvalidRequest.of_field("changes", "Must be a list of 1 to 10 000 changes.")
    if len(changes) > BATCH_CHANGES_MAX:
        raise TooManyChanges(f"A batch has at most {BATCH_CHANGES_MAX} changes; this one has {len(changes)}.")
    checked = check_changes(changes, is_admin=call.passport.may(ADMIN_PERMISSION))
    unknown = unknown_merchants(ledger, call.passport, [c for c in checked if isinstance(c, Change)])
    if unknown:
        checked = [unknown.get(c.merchant_id, c) if isinstance(c, Change) else c for c in checked]
    if is_atomic:
        _refuse_invalid(checked)
    if not slots.acquire(timeout=max(min(call.seconds_left, SLOT_SECONDS_MAX), 0)):
        raise LedgerBusy(retry_after_seconds=5)
    try:
        return _answer(carry_out(ledger, [Posting(call, checked, is_batch=True, is_atomic=is_atomic)], threshold)[0])
    finally:
        slots.release()


def check_changes(raws: Sequence[Any], *, is_admin: bool) -> list[Change | ServiceError]:
    """Return each change, or what is wrong with it. Lets others run in between, since ten thousand take a while."""
    checked: list[Change | ServiceError] = []
    for start in range(0, len(raws), CHECKED_AT_ONCE):
        for raw in raws[start : start + CHECKED_AT_ONCE]:
            try:
                checked.append(check_change(raw, is_admin=is_admin))
            except ServiceError as error:
                checked.append(error.with_traceback(None))  # which holds this frame, and so itself
        time.sleep(0)
    return checked


def unknown_merchants(ledger: Ledger, passport: Passport, changes: Iterable[Change]) -> dict[str, ServiceError]:
    """Return the merchants of the changes that do not exist for the caller, with the error that says so.

    Raises: Unavailable where nobody can say.
    """
    named = {change.merchant_id for change in changes}
    unknown: dict[str, ServiceError] = {m: MerchantNotFound() for m in named if not passport.sees(m)}
    seen = named - unknown.keys()
    try:
        ledger.ensure_merchants(seen)
    except MerchantNotFound:
        unheard = ledger.run(lambda session: unheard_merchants(session, seen))
        unknown |= _not_found(ledger, sorted(unheard))
    return unknown


def _not_found(ledger: Ledger, unheard: Sequence[str]) -> dict[str, ServiceError]:
    """Ask for merchants that we have not heard of, and return those that do not exist.

    After `UNKNOWN_MERCHANTS_MAX` of those the rest is not asked for: a batch may name ten thousand.
    """
    missing: dict[str, ServiceError] = {}
    for merchant_id in unheard:
        if len(missing) >= UNKNOWN_MERCHANTS_MAX:
            missing[merchant_id] = MerchantNotFound()
            continue
        try:
            ledger.ensure_merchants([merchant_id])
        except MerchantNotFound as error:
            missing[merchant_id] = error
    return missing


def _refuse_invalid(checked: Sequence[Change | ServiceError]) -> None:
    """Raise what is wrong with an atomic batch: all that is invalid at once, else its first refusal."""
    refused = [(index, c) for index, c in enumerate(checked) if isinstance(c, ServiceError)]
    if not refused:
        return
    invalid = [(index, error) for index, error in refused if isinstance(error, InvalidRequest)]
    if not invalid:
        index, error = refused[0]
        error.extra["index"] = index
        raise error
    errors = {
        f"changes.{index}.{field}": messages
        for index, error in invalid
        for field, messages in (error.errors or {"change": [error.detail]}).items()
    }
    classes = {type(error) for _, error in invalid}
    error_class = classes.pop() if len(classes) == 1 else InvalidRequest
    index, first = invalid[0]
    raise error_class(f"Change {index}: {first.detail}", errors=errors, index=index)


def carry_out(ledger: Ledger, postings: Sequence[Posting], threshold: Threshold) -> list[Outcome]:
    """Post in one transaction, again where that is asked for, and one by one where one of many breaks the statement."""
    try:
        outcomes = _run(ledger, postings, threshold)
    except BROKEN_BY_ONE:
        if len(postings) == 1:
            raise
        outcomes = [_alone(ledger, posting, threshold) for posting in postings]
    ledger.wake_relay()
    return outcomes


def _run(ledger: Ledger, postings: Sequence[Posting], threshold: Threshold) -> list[Outcome]:
    def work(session: Session) -> list[Outcome]:
        return post(session, postings, threshold=threshold)

    for _ in range(ATTEMPTS_MAX):
        try:
            outcomes: list[Outcome] = ledger.run(work)
        except PostingRaced:
            continue
        return outcomes
    raise Unavailable(retry_after_seconds=1)


def _alone(ledger: Ledger, posting: Posting, threshold: Threshold) -> Outcome:
    try:
        return _run(ledger, [posting], threshold)[0]
    except ServiceError as error:
        return error
    except BROKEN_BY_ONE:
        log.exception("a change broke its statement")
        return InternalError()


def post_within(
    session: Session, passport: Passport, changes: Sequence[Change], *, threshold: Threshold, is_of_order: bool = False
) -> list[EntryView]:
    """Post changes within the act that is being carried out, which has claimed its key: all or none.

    Returns: their entries, in their order.
    Raises: InsufficientBalance, BalanceTooLarge, RefundedThroughOrder; Unavailable.
    Emits: BalancesChanged, LargeChangeDetected.
    Locks: the accounts by ascending id.
    """
    if not changes:
        return []
    call = replace(current_call.get(), passport=passport, idempotency_key=None)
    posting = Posting(call, changes, is_batch=True, is_of_order=is_of_order)
    for _ in range(ATTEMPTS_MAX):
        try:
            [outcome] = post(session, [posting], threshold=threshold, is_within=True)
        except PostingRaced:
            continue
        if isinstance(outcome, ServiceError):
            outcome.extra.pop("index", None)
            raise outcome
        return [item["entry"] for item in orjson.loads(outcome.result)["items"]]
    raise Unavailable(retry_after_seconds=1)


def _answer(outcome: Outcome) -> Answer:
    if isinstance(outcome, ServiceError):
        raise outcome
    return outcome


def log_filter(
    *,
    zone_name: str,
    date_text: str | None,
    from_time: str | None,
    to_time: str | None,
    types: Sequence[str | int],
    groups: Sequence[str],
    **further: str | None,
) -> LogFilter:
    """Return the filter of a balance log: of a day, of a range, or of today where neither is named.

    further: `min_amount`, `max_amount` and the exact filters.
    Raises: InvalidRequest.
    """
    start, end = _range(zone_name, date_text, from_time, to_time)
    return check_filter(start=start, end=end, types=types, groups=groups, **further)


FIRST_TIME: Final = "2000-01-01T00:00:00Z"
_FIRST, _LAST = datetime.fromisoformat(FIRST_TIME), datetime.fromisoformat("2100-01-01T00:00:00Z")


def _range(
    zone_name: str, date_text: str | None, from_time: str | None, to_time: str | None
) -> tuple[datetime, datetime]:
    if date_text is not None and (from_time is not None or to_time is not None):
        raise InvalidRequest.of_field("date", "Give either a date, or from and to.")
    if from_time is None and to_time is None:
        day = today(zone_name).isoformat() if date_text is None else date_text
        return _parsed(lambda text: day_bounds(date.fromisoformat(text), zone_name), "date", day)
    start = _FIRST if from_time is None else _parsed(parse_rfc3339, "from", from_time)
    end = _LAST if to_time is None else _parsed(parse_rfc3339, "to", to_time)
    return start, end


def _parsed(parse: Callable[[str], Parsed], name: str, text: str) -> Parsed:
    try:
        return parse(text)
    except (ValueError, OverflowError):
        raise InvalidRequest.of_field(name, f"{text[:40]!r} is no time.") from None
