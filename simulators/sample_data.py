"""Sample data: a file of valid balance changes of all types, that never overdraws anybody in its order.

    python -m simulators.sample_data changes --rows 10000 --users 200 --seed 1 --merchants A,B > changes.csv

The same arguments make the same file, byte for byte. Order numbers and users bear the seed, so that files of two
seeds can be posted to one system.
"""

import argparse
import csv
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import TextIO

from shared.money import format_minor, fraction_digits

CNY, USDT = "CNY", "USDT"
RESETS = (231, 232, 233)
ADMIN_TYPES = (326, 335, 341, 342)
# How often a type comes, beside the recharges that every account begins with. Source of the codes: FEATURES.md.
WEIGHTS = {
    231: 6,
    232: 4,
    233: 3,
    321: 14,
    322: 5,
    323: 20,
    324: 5,
    325: 6,
    326: 2,
    331: 16,
    332: 10,
    333: 4,
    334: 2,
    335: 1,
    341: 2,
    342: 1,
}
ORDER_PREFIXES = {233: "T", 321: "R", 322: "W", 323: "P", 331: "B", 332: "N"}
REFUNDS = {324: (323,), 333: (331, 332)}
CHANNELS = {CNY: ("alipay", "wechat", "unionpay"), USDT: ("trc20", "erc20")}
REASONS = (
    "Goodwill after an outage",
    "Duplicate charge found by the customer",
    "Correction agreed with the merchant",
    "Migration of an old balance",
)
NOTES = ("", "", "", "first order", "promotion of the month", "by phone", "补单")
USDT_USERS_SHARE = 0.2
LARGE_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class SampleChange:
    """One row of the file. `type` is a balance type's code; what is empty is not said."""

    merchant_code: str
    user_id: str
    type: str
    amount: str
    currency: str
    order_no: str = ""
    channel: str = ""
    note: str = ""
    reason: str = ""


COLUMNS = tuple(field.name for field in fields(SampleChange))


@dataclass(kw_only=True)
class _Account:
    merchant_code: str
    user_id: str
    currency: str
    balance_minor: int = 0

    def __post_init__(self) -> None:
        self.refundable: dict[int, list[tuple[str, int]]] = defaultdict(list)

    def minor(self, units: float) -> int:
        """Return an amount in whole and hundredths of units as minor units."""
        return round(units * 100) * int(10 ** (fraction_digits(self.currency) - 2))


class _Writer:
    """Writes one change after the other, knowing each account's balance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self._orders = 0

    def change(self, account: _Account, code: int) -> SampleChange | None:
        """Return a change of this type, or None where the account cannot have one now."""
        if code in REFUNDS:
            return self._refund(account, code)
        minor = self._amount(account, code)
        if minor is None:
            return None
        order_no = self._new_order(code) if code in ORDER_PREFIXES else ""
        for refund, paid_by in REFUNDS.items():
            if code in paid_by:
                account.refundable[refund].append((order_no, -minor))
        return self._written(account, code, minor, order_no)

    def _refund(self, account: _Account, code: int) -> SampleChange | None:
        if not account.refundable[code]:
            return None
        orders = account.refundable[code]
        order_no, paid_minor = orders.pop(self.random.randrange(len(orders)))
        share = self.random.choice((1, 1, 2, 4))
        return self._written(account, code, max(paid_minor // share, 1), order_no)

    def _amount(self, account: _Account, code: int) -> int | None:
        if code == 231 or (code in RESETS and self.random.random() < 0.5):
            return 0
        if code == 321:
            is_large = self.random.random() < LARGE_SHARE
            return account.minor(self.random.uniform(10_000, 50_000) if is_large else self.random.uniform(50, 3_000))
        if code in (325, 341):
            return account.minor(self.random.uniform(1, 50))
        is_increase = code in (326, 335) and self.random.random() < 0.5
        minor = account.minor(self.random.uniform(1, 400))
        if is_increase:
            return minor
        minor = min(minor, account.balance_minor)
        return -minor if minor > 0 else None

    def _new_order(self, code: int) -> str:
        self._orders += 1
        return f"{ORDER_PREFIXES[code]}{self.seed}-{self._orders:07}"

    def _written(self, account: _Account, code: int, minor: int, order_no: str) -> SampleChange:
        account.balance_minor += minor
        return SampleChange(
            merchant_code=account.merchant_code,
            user_id=account.user_id,
            type=str(code),
            amount=format_minor(minor, account.currency),
            currency=account.currency,
            order_no=order_no,
            channel=self.random.choice(CHANNELS[account.currency]) if code == 321 else "",
            note=self.random.choice(NOTES),
            reason=self.random.choice(REASONS) if code in ADMIN_TYPES else "",
        )


def make_changes(*, rows: int, users: int, seed: int, merchants: list[str]) -> list[SampleChange]:
    """Make so many changes of so many users, shared out among the merchants, with every type among them.

    Raises: ValueError where the rows do not suffice for a recharge of each account and then each type.
    """
    writer = _Writer(seed)
    accounts = list(_accounts(writer.random, users, seed, merchants))
    changes = [opening for account in accounts if (opening := writer.change(account, 321)) is not None]
    missing = [*(code for code in WEIGHTS if code not in REFUNDS), *REFUNDS]
    while accounts and len(changes) < rows:
        account = writer.random.choice(accounts)
        change = writer.change(account, missing[0]) if missing else None
        if change is not None:
            missing.pop(0)
        else:
            change = writer.change(account, writer.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0])
        if change is not None:
            changes.append(change)
    if missing or len(changes) > rows:
        raise ValueError(f"{rows} rows do not suffice for every type and {users} users")
    return changes


def _accounts(chance: random.Random, users: int, seed: int, merchants: list[str]) -> Iterator[_Account]:
    for number in range(users if merchants else 0):
        merchant_code, user_id = merchants[number % len(merchants)], f"u{seed}-{number + 1:04}"
        yield _Account(merchant_code=merchant_code, user_id=user_id, currency=CNY)
        if chance.random() < USDT_USERS_SHARE:
            yield _Account(merchant_code=merchant_code, user_id=user_id, currency=USDT)


def write_changes(changes: Iterable[SampleChange], file: TextIO) -> None:
    """Write the changes as CSV with a header."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(change) for change in changes)


def read_changes(file: Iterable[str]) -> list[SampleChange]:
    """Read the changes of a CSV. Raises: ValueError for one with other columns."""
    reader = csv.DictReader(file)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"the columns are {', '.join(COLUMNS)}")
    return [SampleChange(**row) for row in reader]


@dataclass(frozen=True)
class TypeTotal:
    """The total of one type in one currency; `decrease` is zero or negative."""

    count: int
    increase: Decimal
    decrease: Decimal

    @property
    def net(self) -> Decimal:
        """What all of them together changed."""
        return self.increase + self.decrease


Summary = dict[tuple[int, str], TypeTotal]


def summarize(changes: Iterable[SampleChange]) -> Summary:
    """Sum the changes up by type and currency."""
    amounts: dict[tuple[int, str], list[Decimal]] = defaultdict(list)
    for change in changes:
        amounts[int(change.type), change.currency].append(Decimal(change.amount))
    return {
        key: TypeTotal(
            len(some),
            sum((amount for amount in some if amount > 0), Decimal(0)),
            sum((amount for amount in some if amount < 0), Decimal(0)),
        )
        for key, some in sorted(amounts.items())
    }


def main(arguments: list[str] | None = None) -> int:
    """Write a file to standard output."""
    parser = argparse.ArgumentParser(prog="python -m simulators.sample_data", description=__doc__)
    kinds = parser.add_subparsers(required=True)
    changes = kinds.add_parser("changes", help="balance changes of all types, as CSV")
    changes.add_argument("--rows", type=int, default=10_000)
    changes.add_argument("--users", type=int, default=200)
    changes.add_argument("--seed", type=int, default=1)
    changes.add_argument("--merchants", default="A,B", help="their codes, separated by commas")
    wanted = parser.parse_args(arguments)
    merchants = [code.strip() for code in wanted.merchants.split(",") if code.strip()]
    try:
        made = make_changes(rows=wanted.rows, users=wanted.users, seed=wanted.seed, merchants=merchants)
    except ValueError as error:
        parser.error(str(error))
    write_changes(made, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
