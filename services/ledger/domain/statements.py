"""What a row of a statement says, and by which words and columns a channel says it. Formats are read beside this."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypedDict
from zoneinfo import ZoneInfo

from shared.contracts.statements import RECORD_STATUSES
from shared.money import InvalidMoney, parse_minor

FIELDS: Final = ("upstream_ref", "order_no", "amount", "fee", "currency", "status", "time")
REQUIRED_FIELDS: Final = ("upstream_ref", "amount", "status", "time")
ORDER_NO_LENGTH_MAX: Final = 64
YEAR_MIN, YEAR_MAX = 1990, 2100
SHOWN_LENGTH_MAX: Final = 40

_UPSTREAM_REF = re.compile(r"[!-~]{1,128}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)


class Fault(NamedTuple):
    """What is wrong with a row. `column` is the file's own name of it, None where the whole row is to blame."""

    line: int
    column: str | None
    message: str


class Unreadable(Exception):
    """Nothing after this place of the file can be read."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Record(NamedTuple):
    """What a platform says of one payment; amounts in minor units."""

    line: int
    upstream_ref: str
    order_no: str | None
    amount: int
    fee: int
    currency: str
    status: str
    occurred_at: datetime


class RawRecord(TypedDict, total=False):
    """A row as its file has it: field to text."""

    upstream_ref: str
    order_no: str
    amount: str
    fee: str
    currency: str
    status: str
    time: str


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a channel writes its statements.

    columns: field to the column's name. statuses: the platform's word, in lower case, to ours.
    date_format: as strptime has it; None is RFC 3339. zone_name: of times that say none; None refuses those.
    currency: of files without that column.
    """

    columns: Mapping[str, str] = field(default_factory=lambda: {name: name for name in FIELDS})
    statuses: Mapping[str, str] = field(default_factory=lambda: {word: word for word in RECORD_STATUSES})
    date_format: str | None = None
    zone_name: str | None = None
    currency: str | None = None
    delimiter: str | None = None
    decimal_sign: str = "."

    @classmethod
    def of_config(cls, config: Mapping[str, Any], *, zone_name: str) -> "Terms":
        """Return the terms in a channel's configuration.

        zone_name: the platform's, for a date format without an offset where the channel names no zone.
        """
        date_format = config.get("date_format")
        return cls(
            columns={name: name for name in FIELDS} | dict(config.get("columns") or {}),
            statuses={word: word for word in RECORD_STATUSES}
            | {word.strip().lower(): status for word, status in (config.get("statuses") or {}).items()},
            date_format=date_format,
            zone_name=config.get("timezone") or (zone_name if date_format else None),
            currency=config.get("currency"),
            delimiter=config.get("delimiter"),
            decimal_sign=config.get("decimal_sign") or ".",
        )


class RecordReader:
    """Reads raw records by a channel's terms; each is right, or all that is wrong with it is named."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._zone = ZoneInfo(terms.zone_name) if terms.zone_name else None

    def read(self, line: int, raw: RawRecord) -> Record | list[Fault]:
        """Return the record of a row, or its faults, in the order of the fields."""
        faults: list[Fault] = []

        def taken(name: str, read: Any, *values: Any) -> Any:
            try:
                return read(*values)
            except (ValueError, InvalidMoney) as error:
                column = self._terms.columns.get(name, name)
                faults.append(Fault(line, column, getattr(error, "detail", None) or str(error)))
                return None

        upstream_ref = taken("upstream_ref", _upstream_ref, raw.get("upstream_ref", ""))
        order_no = taken("order_no", _order_no, raw.get("order_no", ""))
        given = (raw.get("currency") or "").strip().upper() or self._terms.currency or ""
        currency = taken("currency", _currency, given)
        known = currency or "USDT"  # which has the most digits, so that only what is wrong in any currency is named
        amount = taken("amount", self._amount, raw.get("amount", ""), known)
        fee = taken("fee", self._fee, raw.get("fee", ""), known)
        status = taken("status", self._status, raw.get("status", ""))
        occurred_at = taken("time", self._time, raw.get("time", ""))
        if faults:
            return faults
        return Record(line, upstream_ref, order_no, amount, fee, currency, status, occurred_at)

    def _amount(self, text: str, currency: str) -> int:
        minor = self._minor(text, currency)
        if minor < 0:
            raise ValueError("An amount is not negative: what was given back has the status refunded.")
        return minor

    def _fee(self, text: str, currency: str) -> int:
        return self._minor(text, currency) if text.strip() else 0

    def _minor(self, text: str, currency: str) -> int:
        text = text.strip()
        if self._terms.decimal_sign == ",":
            if "." in text:
                raise ValueError(f"Not an amount with a decimal comma: {_shown(text)}.")
            text = text.replace(",", ".")
        return parse_minor(text, currency)

    def _status(self, text: str) -> str:
        status = self._terms.statuses.get(text.strip().lower())
        if status is None:
            raise ValueError(f"Unknown status: {_shown(text)}. The channel's configuration says what its words mean.")
        return status

    def _time(self, text: str) -> datetime:
        text = text.strip()
        instant = self._of_format(text) if self._terms.date_format else self._of_rfc3339(text)
        if instant.tzinfo is None:
            if self._zone is None:
                raise ValueError(f"A time needs its offset, as 2026-11-22T09:30:00+08:00 has it: {_shown(text)}.")
            instant = instant.replace(tzinfo=self._zone)
        if not YEAR_MIN <= instant.year <= YEAR_MAX:
            raise ValueError(f"Not a time of these years: {_shown(text)}.")
        return instant.astimezone(UTC)

    def _of_rfc3339(self, text: str) -> datetime:
        try:
            if not _RFC3339.fullmatch(text):
                raise ValueError
            return datetime.fromisoformat(text.upper())
        except ValueError:
            raise ValueError(f"Not a time such as 2026-11-22T09:30:00Z: {_shown(text)}.") from None

    def _of_format(self, text: str) -> datetime:
        try:
            return datetime.strptime(text, str(self._terms.date_format))
        except ValueError:
            raise ValueError(f"Not a time of the form {self._terms.date_format}: {_shown(text)}.") from None


def _upstream_ref(text: str) -> str:
    text = text.strip()
    if not _UPSTREAM_REF.fullmatch(text):
        raise ValueError("Must be 1 to 128 printable ASCII characters without spaces.")
    return text


def _order_no(text: str) -> str | None:
    text = text.strip()
    if len(text) > ORDER_NO_LENGTH_MAX or not text.isprintable():
        raise ValueError(f"Must be at most {ORDER_NO_LENGTH_MAX} printable characters.")
    return text or None


def _currency(code: str) -> str:
    if not code:
        raise ValueError("A currency is missing, and the channel's configuration names none.")
    parse_minor("0", code)
    return code


def _shown(text: str) -> str:
    """Return a value as a fault may quote it."""
    return repr(text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}…")
