"""How a change becomes an entry: the running balance, the version, and the digest that chains an account's entries."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from services.ledger.domain.balance_types import label
from services.ledger.domain.changes import Change
from shared.contracts.ledger import ADMIN_TYPES, BalanceTooLarge, EntryView, InsufficientBalance
from shared.money import format_minor

BALANCE_MINOR_MAX: Final = 10**18
NO_DIGEST: Final = b""


@dataclass(slots=True)
class Account:
    """A locked account while a statement is posted; `balance`, `version` and `digest` follow its entries."""

    id: int
    merchant_id: str
    holder_type: str
    holder_id: str
    currency: str
    balance: int = 0
    held: int = 0
    version: int = 0
    digest: bytes = NO_DIGEST


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes a change, in which request."""

    actor_id: str
    actor_name: str
    actor_type: str
    request_id: str


@dataclass(slots=True)
class Entry:
    """One immutable row of the ledger. The holder's leg is `amount`, the counter-account's is its opposite."""

    account_id: int
    version: int
    amount: int
    balance_before: int
    balance_after: int
    type: int
    counter_account: str | None
    merchant_id: str
    holder_type: str
    holder_id: str
    currency: str
    order_no: str | None
    channel: str | None
    note: str | None
    reason: str | None
    actor_id: str
    actor_name: str
    actor_type: str
    request_id: str
    at_microseconds: int
    digest: bytes


def enter(account: Account, change: Change, maker: Maker, *, at_microseconds: int) -> Entry:
    """Apply a change to a locked account and return the entry that says so.

    at_microseconds: the entry's time, since 1970 in UTC.
    Raises, in order: InsufficientBalance, when the account would fall below what is held; BalanceTooLarge. The
    account is then as it was.
    """
    before = account.balance
    after = before + change.amount
    if after < account.held and change.amount < 0:
        raise InsufficientBalance(
            available=format_minor(before - account.held, account.currency), currency=account.currency
        )
    if after > BALANCE_MINOR_MAX:
        raise BalanceTooLarge
    version = account.version + 1
    balance_type = change.type
    counter_account = balance_type.counter_account_for(change.channel)
    entry = Entry(
        account.id,
        version,
        change.amount,
        before,
        after,
        balance_type.code,
        counter_account,
        account.merchant_id,
        account.holder_type,
        account.holder_id,
        account.currency,
        change.order_no,
        change.channel,
        change.note,
        change.reason,
        maker.actor_id,
        maker.actor_name,
        maker.actor_type,
        maker.request_id,
        at_microseconds,
        NO_DIGEST,
    )
    entry.digest = digest_of(account.digest, entry)
    account.balance, account.version, account.digest = after, version, entry.digest
    return entry


def digest_of(previous: bytes, e: Any) -> bytes:
    """Return the digest of an entry, or of a row with its fields, that follows one with the previous digest.

    `verification.py` says the same in SQL, for the proof of the chain.
    """
    content = (
        f"{e.account_id}\x1f{e.version}\x1f{e.amount}\x1f{e.balance_before}\x1f{e.balance_after}\x1f{e.type}"
        f"\x1f{e.counter_account or ''}\x1f{e.merchant_id}\x1f{e.holder_type}\x1f{e.holder_id}"
        f"\x1f{e.currency}\x1f{e.order_no or ''}\x1f{e.channel or ''}\x1f{e.note or ''}\x1f{e.reason or ''}"
        f"\x1f{e.actor_id}\x1f{e.actor_name}\x1f{e.actor_type}\x1f{e.request_id}"
        f"\x1f{e.at_microseconds}"
    )
    return sha256(previous + sha256(content.encode()).digest()).digest()


def entry_id(account_id: int, version: int) -> str:
    """Return the public id of an entry: its place in its account."""
    return f"ent_{account_id}_{version}"


@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def time_text(at_microseconds: int) -> str:
    """Return an instant in RFC 3339 with all six digits. Entries of one batch share their second, which is kept."""
    seconds, microseconds = divmod(at_microseconds, 1_000_000)
    return f"{_second_text(seconds)}.{microseconds:06d}Z"


def view_of(entry: Any) -> EntryView:
    """Return an entry, or a row of the table with the same fields, as others know it."""
    name, group = label(entry.type)
    return {
        "entry_id": entry_id(entry.account_id, entry.version),
        "user_id": entry.holder_id if entry.holder_type == "user" else None,
        "holder_type": entry.holder_type,
        "holder_id": entry.holder_id,
        "merchant_id": entry.merchant_id,
        "amount": format_minor(entry.amount, entry.currency),
        "currency": entry.currency,
        "order_no": entry.order_no,
        "balance": format_minor(entry.balance_after, entry.currency),
        "version": entry.version,
        "type": entry.type,
        "type_name": name,
        "group": group,
        "time": time_text(entry.at_microseconds),
        "operator": entry.actor_name if entry.actor_type == "user" or entry.type in ADMIN_TYPES else None,
        "channel": entry.channel,
        "note": entry.note,
        "reason": entry.reason,
    }
