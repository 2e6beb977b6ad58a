"""Posting: any number of requests, in one transaction of a few round trips, each with its own answer.

First the keys are claimed and the accounts locked, then `domain.entries` says what each change comes to, then all of
it is written. Nothing is asked of another service in between. See docs/decisions/0012-posting-locks-decides-writes.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger import posting_sql
from services.ledger.domain.changes import Change
from services.ledger.domain.entries import Account, Entry, Maker, enter, view_of
from services.ledger.domain.orders import TYPES_OF_ORDERS, refuse_past_order
from services.ledger.domain.thresholds import Threshold
from services.ledger.posting_sql import integers, texts
from shared import idempotency
from shared.contracts.ledger import (
    EVENT_ENTRIES_MAX,
    BalancesChanged,
    BatchView,
    ChangeResult,
    EntryView,
    LargeChangeDetected,
)
from shared.errors import Conflict, IdempotencyInProgress, NotFound, ServiceError
from shared.events import Event
from shared.outbox import outbox_row
from shared.rpc.wire import Answer, Call

HOUR_MICROSECONDS: Final = 3_600_000_000
KEPT_REFUSALS: Final = (Conflict, NotFound)
_Holder = tuple[str, str, str, str]
_Posted = tuple[Entry, EntryView]
_Mark = tuple[int, list[tuple[Account, int, int, bytes]]]


class PostingRaced(Exception):
    """Another transaction opened one of the accounts meanwhile: nothing is written, and the same may be tried again."""


@dataclass(slots=True)
class Posting:
    """One request to post. A change that was invalid stands as its error.

    is_batch: whether the answer is a BatchView, or the one entry.
    is_atomic: whether one refusal refuses all.
    is_of_order: whether it is an order's own act, which counts what it settles and refunds.
    """

    call: Call
    changes: Sequence[Change | ServiceError]
    is_batch: bool = False
    is_atomic: bool = True
    is_of_order: bool = False


Outcome = Answer | ServiceError


def post(
    session: Session, postings: Sequence[Posting], *, threshold: Threshold, is_within: bool = False
) -> list[Outcome]:
    """Post what the requests ask for, in their order, and return each one's answer or refusal.

    is_within: whether the transaction holds more than this, and may try again after PostingRaced.
    Raises: PostingRaced. Unless `is_within`, the session is then only good for a rollback.
    Emits: BalancesChanged for each request and 500 entries, LargeChangeDetected.
    Locks: the keys, then the accounts by ascending id.
    Idempotent: on each call's idempotency key; a replay has the first answer.
    """
    connection = session.connection()
    ledger, outcomes = _begin(connection, postings)
    fresh = [n for n, outcome in enumerate(outcomes) if outcome is None]
    events: list[tuple[Event, Call]] = []
    for n in fresh:
        outcomes[n], posted = _decide(ledger, postings[n])
        events += [(event, postings[n].call) for event in events_of(posted, threshold)]
    if fresh:
        _write(connection, ledger, events, [(postings[n].call, outcomes[n]) for n in fresh], is_within=is_within)
    return [outcome for outcome in outcomes if outcome is not None]


def _begin(connection: sa.Connection, postings: Sequence[Posting]) -> tuple["_Ledger", list[Outcome | None]]:
    """Claim the keys and lock the accounts.

    Returns: the locked accounts; and for each request what its key answered before, or None where it is to be
    carried out now. A key that runs elsewhere, or twice in these requests, is IdempotencyInProgress; a request
    without a key is always new.
    """
    outcomes: list[Outcome | None] = [None] * len(postings)
    claims: dict[tuple[str, str], int] = {}
    for n, posting in enumerate(postings):
        key = posting.call.idempotency_key
        if key is not None and claims.setdefault((posting.call.passport.actor_id, key), n) != n:
            outcomes[n] = IdempotencyInProgress(retry_after_seconds=1)
    changes = (c for posting in postings for c in posting.changes if type(c) is Change)
    holders = list(dict.fromkeys((c.merchant_id, c.holder_type, c.holder_id, c.currency) for c in changes))
    rows = posting_sql.run(
        connection, posting_sql.CLAIM_AND_LOCK, _claim_columns(list(claims)) | _holder_columns(holders)
    )
    places = list(claims.values())
    for n, is_mine, request_hash, answer, error, account_id, *_ in rows:
        if account_id is None:
            request = places[n - 1]
            outcomes[request] = _replay(postings[request].call, is_mine, request_hash, answer, error)
    ledger = _Ledger()
    ledger.take_locked(holders, rows)
    ledger.take_new([holder for holder in holders if holder not in ledger.accounts], connection)
    ledger.take_orders(
        [c for p in postings if not p.is_of_order for c in p.changes if type(c) is Change and _may_be_orders(c)],
        connection,
    )
    return ledger, outcomes


def _may_be_orders(change: Change) -> bool:
    return change.type.code in TYPES_OF_ORDERS


def _replay(call: Call, is_mine: bool, request_hash: str, answer: str | None, error: str | None) -> Outcome:
    if not is_mine:
        return IdempotencyInProgress(retry_after_seconds=1)
    try:
        return idempotency.replay(call, request_hash, answer, error)
    except ServiceError as refusal:
        return refusal


def _write(
    connection: sa.Connection,
    ledger: "_Ledger",
    events: Sequence[tuple[Event, Call]],
    outcomes: Sequence[tuple[Call, Outcome | None]],
    *,
    is_within: bool,
) -> None:
    """Write accounts, entries, sums, events and answers. Raises: PostingRaced."""
    opened, touched = ledger.entered_accounts()
    parameters = (
        _account_columns(opened, touched)
        | _entry_columns(ledger.entries)
        | _delta_columns(ledger.entries)
        | _event_columns([outbox_row(event, call) for event, call in events])
        | _answer_columns(outcomes)
    )
    # Only who opens an account can lose a race for it: all others save two round trips.
    with connection.begin_nested() if is_within and opened else nullcontext():
        [(opened_count,)] = posting_sql.run(connection, posting_sql.WRITE, parameters)
        if opened_count != len(opened):
            raise PostingRaced


def _decide(ledger: "_Ledger", posting: Posting) -> tuple[Outcome, list[_Posted]]:
    """Return the request's outcome, and its entries, which are in the ledger then, but not yet written."""
    passport = posting.call.passport
    maker = Maker(passport.actor_id, passport.actor_name, passport.actor_type, passport.request_id)
    mark = ledger.mark(posting.changes) if posting.is_atomic and posting.is_batch else None
    results: list[_Posted | ServiceError] = []
    for index, change in enumerate(posting.changes):
        try:
            if isinstance(change, ServiceError):
                raise change
            if not posting.is_of_order:
                ledger.refuse_past_order(change)
            entry = ledger.enter(change, maker)
            results.append((entry, view_of(entry)))
        except ServiceError as refusal:
            if mark is not None:
                ledger.go_back(mark)
                refusal.extra["index"] = index
                return refusal, []
            # Its traceback holds this frame, and so the whole batch, until the collector finds the ring.
            results.append(refusal.with_traceback(None))
    posted = [result for result in results if not isinstance(result, ServiceError)]
    if posting.is_batch:
        return Answer(_batch_json(results, posted=len(posted))), posted
    [single] = results
    return (single if isinstance(single, ServiceError) else Answer(single[1])), posted


def _batch_json(results: Sequence[_Posted | ServiceError], *, posted: int) -> str:
    """Return the BatchView as JSON: it is written once, kept, and passed on unread to the client."""
    items: list[ChangeResult] = [
        {"error": result.view()} if isinstance(result, ServiceError) else {"entry": result[1]} for result in results
    ]
    view: BatchView = {"items": items, "posted": posted, "refused": len(items) - posted}
    return orjson.dumps(view, option=orjson.OPT_SORT_KEYS).decode()


def events_of(posted: Sequence[_Posted], threshold: Threshold) -> Iterable[Event]:
    """Yield the events that one request's entries make."""
    for start in range(0, len(posted), EVENT_ENTRIES_MAX):
        views = [view for _, view in posted[start : start + EVENT_ENTRIES_MAX]]
        merchants = {view["merchant_id"] for view in views}
        yield BalancesChanged(entries=views, merchant_id=merchants.pop() if len(merchants) == 1 else None)
    for entry, view in posted:
        if threshold.is_reached(entry.amount, entry.currency):
            yield large_change(view, threshold)


def large_change(entry: EntryView, threshold: Threshold) -> LargeChangeDetected:
    """Return the event that tells of a large entry."""
    names = {f.name for f in fields(LargeChangeDetected)} & entry.keys()
    return LargeChangeDetected(threshold=threshold.text, **{name: entry[name] for name in names})  # type: ignore[literal-required]


@dataclass(slots=True)
class _Ledger:
    """The locked accounts of one transaction, and the entries that it will write."""

    accounts: dict[_Holder, Account] = field(default_factory=dict)
    new_ids: set[int] = field(default_factory=set)
    at_microseconds: int = 0
    entries: list[Entry] = field(default_factory=list)
    kinds: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def take_locked(self, holders: Sequence[_Holder], rows: Iterable[tuple[Any, ...]]) -> None:
        """Take in the accounts that are there, of what `CLAIM_AND_LOCK` returned."""
        for n, _, _, _, _, account_id, balance, held, version, digest, at in rows:
            if account_id is not None:
                account = self.accounts[holders[n - 1]] = Account(account_id, *holders[n - 1])
                account.balance, account.held, account.version, account.digest = balance, held, version, bytes(digest)
                self.at_microseconds = max(self.at_microseconds, at)

    def take_new(self, holders: Sequence[_Holder], connection: sa.Connection) -> None:
        """Give ids to accounts that come into being, if one of their changes is posted."""
        if not holders:
            return
        rows = posting_sql.run(connection, posting_sql.NEW_ACCOUNT_IDS, {"count": len(holders)})
        for holder, (account_id, at) in zip(holders, rows, strict=True):
            self.accounts[holder] = Account(account_id, *holder)
            self.new_ids.add(account_id)
            self.at_microseconds = max(self.at_microseconds, at)

    def take_orders(self, changes: Sequence[Change], connection: sa.Connection) -> None:
        """Note which changes name an order. It comes after the locks: the order's own acts see what it let by."""
        if changes:
            parameters = {"order_nos": texts(change.order_no for change in changes)}
            rows = posting_sql.run(connection, posting_sql.ORDERS_NAMED, parameters)
            self.kinds = {(merchant_id, order_no): kind for merchant_id, order_no, kind in rows}

    def refuse_past_order(self, change: Change) -> None:
        """Refuse to settle or refund an order past its own acts. Raises: RefundedThroughOrder, SettledThroughOrder."""
        kind = self.kinds.get((change.merchant_id, change.order_no)) if self.kinds else None
        if kind is not None:
            refuse_past_order(code=change.type.code, kind=kind)

    def enter(self, change: Change, maker: Maker) -> Entry:
        """Apply a change to its account. Raises: InsufficientBalance, BalanceTooLarge."""
        account = self.accounts[change.merchant_id, change.holder_type, change.holder_id, change.currency]
        entry = enter(account, change, maker, at_microseconds=self.at_microseconds)
        self.at_microseconds += 1  # so that entries of one statement keep their order in every list
        self.entries.append(entry)
        return entry

    def mark(self, changes: Iterable[Change | ServiceError]) -> _Mark:
        """Return the present state of the accounts that the changes touch, for `go_back`."""
        holders = {(c.merchant_id, c.holder_type, c.holder_id, c.currency) for c in changes if isinstance(c, Change)}
        touched = [self.accounts[holder] for holder in holders]
        return len(self.entries), [(a, a.balance, a.version, a.digest) for a in touched]

    def go_back(self, mark: _Mark) -> None:
        """Forget all that was entered since the mark."""
        count, states = mark
        del self.entries[count:]
        for account, balance, version, digest in states:
            account.balance, account.version, account.digest = balance, version, digest

    def entered_accounts(self) -> tuple[list[Account], list[Account]]:
        """Return the accounts that have new entries: those that come into being, and those that were there."""
        ids = {entry.account_id for entry in self.entries}
        entered = [account for account in self.accounts.values() if account.id in ids]
        return [a for a in entered if a.id in self.new_ids], [a for a in entered if a.id not in self.new_ids]


def _claim_columns(claims: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"callers": [caller for caller, _ in claims], "keys": [key for _, key in claims]}


def _holder_columns(holders: Sequence[_Holder]) -> dict[str, Any]:
    return {
        "merchant_ids": texts(h[0] for h in holders),
        "holder_types": texts(h[1] for h in holders),
        "holder_ids": texts(h[2] for h in holders),
        "currencies": texts(h[3] for h in holders),
    }


def _event_columns(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    return {
        "event_ids": [row["event_id"] for row in rows],
        "routing_keys": [row["routing_key"] for row in rows],
        "envelopes": [row["envelope"] for row in rows],
    }


def _answer_columns(outcomes: Sequence[tuple[Call, Outcome | None]]) -> dict[str, Any]:
    """Return what is kept under its key: what was carried out or refused for good, as `rpc.entrypoints` has it."""
    kept = [
        (call, outcome)
        for call, outcome in outcomes
        if call.idempotency_key is not None and isinstance(outcome, (Answer, *KEPT_REFUSALS))
    ]
    return _claim_columns([(call.passport.actor_id, call.idempotency_key or "") for call, _ in kept]) | {
        "request_hashes": [call.request_hash for call, _ in kept],
        "answers": [orjson.dumps(o.result).decode() if isinstance(o, Answer) else None for _, o in kept],
        "errors": [idempotency.refusal_to_keep(c, o) if isinstance(o, ServiceError) else None for c, o in kept],
    }


def _account_columns(opened: Sequence[Account], touched: Sequence[Account]) -> dict[str, Any]:
    return {
        "opened_ids": integers(a.id for a in opened),
        "opened_merchant_ids": texts(a.merchant_id for a in opened),
        "opened_holder_types": texts(a.holder_type for a in opened),
        "opened_holder_ids": texts(a.holder_id for a in opened),
        "opened_currencies": texts(a.currency for a in opened),
        "opened_balances": integers(a.balance for a in opened),
        "opened_versions": integers(a.version for a in opened),
        "opened_digests": b"".join([a.digest for a in opened]),
        "touched_ids": integers(a.id for a in touched),
        "touched_balances": integers(a.balance for a in touched),
        "touched_versions": integers(a.version for a in touched),
        "touched_digests": b"".join([a.digest for a in touched]),
    }


def _entry_columns(entries: Sequence[Entry]) -> dict[str, Any]:
    return {
        "account_ids": integers([e.account_id for e in entries]),
        "versions": integers([e.version for e in entries]),
        "amounts": integers([e.amount for e in entries]),
        "balances_after": integers([e.balance_after for e in entries]),
        "types": integers([e.type for e in entries]),
        "counter_accounts": texts([e.counter_account for e in entries]),
        "merchant_ids": texts([e.merchant_id for e in entries]),
        "holder_types": texts([e.holder_type for e in entries]),
        "holder_ids": texts([e.holder_id for e in entries]),
        "currencies": texts([e.currency for e in entries]),
        "order_nos": texts([e.order_no for e in entries]),
        "channels": texts([e.channel for e in entries]),
        "notes": texts([e.note for e in entries]),
        "reasons": texts([e.reason for e in entries]),
        "actor_ids": texts([e.actor_id for e in entries]),
        "actor_names": texts([e.actor_name for e in entries]),
        "actor_types": texts([e.actor_type for e in entries]),
        "request_ids": texts([e.request_id for e in entries]),
        "times": integers([e.at_microseconds for e in entries]),
        "digests": b"".join([e.digest for e in entries]),
    }


def _delta_columns(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what the entries add to the sums: a row an hour, merchant, currency, type, counter-account and channel."""
    sums: dict[tuple[int, str, str, int, str | None, str | None], list[int]] = {}
    for e in entries:
        hour = e.at_microseconds // HOUR_MICROSECONDS
        place = (hour, e.merchant_id, e.currency, e.type, e.counter_account, e.channel)
        row = sums.get(place)
        if row is None:
            row = sums[place] = [0, 0, 0]
        row[0] += 1
        row[1 if e.amount > 0 else 2] += e.amount
    return {
        "delta_hours": integers(place[0] for place in sums),
        "delta_merchant_ids": texts(place[1] for place in sums),
        "delta_currencies": texts(place[2] for place in sums),
        "delta_types": integers(place[3] for place in sums),
        "delta_counter_accounts": texts(place[4] for place in sums),
        "delta_channels": texts(place[5] for place in sums),
        "delta_entries": integers(row[0] for row in sums.values()),
        "delta_increases": integers(row[1] for row in sums.values()),
        "delta_decreases": integers(row[2] for row in sums.values()),
    }
