"""A day of an account as a file: CSV of everything, or what a bank would have booked as MT940 and camt.053."""

import csv
import io
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from simulators.payment_platform.state import Payment

COLUMNS = ("upstream_ref", "order_no", "amount", "fee", "currency", "status", "time")
_BOOKED = {"success": "C", "refunded": "RC"}
_CAMT = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"


def day_of(payment: Payment, zone_name: str) -> str:
    """Return the calendar day on which a payment came into its status."""
    return datetime.fromisoformat(payment.time).astimezone(ZoneInfo(zone_name)).date().isoformat()


def csv_statement(payments: Sequence[Payment], zone_name: str) -> str:
    """Return payments as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(payment, name) or "" for name in COLUMNS] for payment in payments)
    return file.getvalue()


def mt940_statement(payments: Sequence[Payment], zone_name: str) -> str:
    """Return booked payments as MT940, a statement each currency. It knows no fees and no times of day."""
    lines: list[str] = []
    for currency in sorted({payment.currency for payment in payments}):
        of_currency = [p for p in payments if p.currency == currency and p.status in _BOOKED]
        if not of_currency:
            continue
        first = _yymmdd(of_currency[0], zone_name)
        lines += [":20:SIMULATED", ":25:SIMULATOR", ":28C:1/1", f":60F:C{first}{currency}0,"]
        for payment in of_currency:
            day = _yymmdd(payment, zone_name)
            amount = payment.amount.replace(".", ",") + ("" if "." in payment.amount else ",")
            mark = _BOOKED[payment.status]
            lines.append(f":61:{day}{day[2:]}{mark}{amount}NTRFNONREF//{payment.upstream_ref}")
            lines.append(f":86:/EREF/{payment.order_no or 'NOTPROVIDED'}/REMI/simulated")
        lines += [f":62F:{_balance(of_currency, first, currency)}", "-"]
    return "\n".join(lines) + "\n"


def _balance(payments: Sequence[Payment], day: str, currency: str) -> str:
    total = sum(Decimal(p.amount) * (1 if p.status == "success" else -1) for p in payments)
    amount = f"{abs(total):f}".replace(".", ",")
    return f"{'C' if total >= 0 else 'D'}{day}{currency}{amount}{'' if ',' in amount else ','}"


def camt_statement(payments: Sequence[Payment], zone_name: str) -> str:
    """Return booked payments as camt.053."""
    entries = "".join(_camt_entry(payment) for payment in payments if payment.status in _BOOKED)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return (
        f'{head}<Document xmlns="{_CAMT}"><BkToCstmrStmt><Stmt><Id>1</Id>{entries}</Stmt></BkToCstmrStmt></Document>\n'
    )


def _camt_entry(payment: Payment) -> str:
    reversal = "<RvslInd>true</RvslInd>" if payment.status == "refunded" else ""
    return (
        f'\n<Ntry><Amt Ccy="{payment.currency}">{payment.amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd>{reversal}'
        f"<Sts><Cd>BOOK</Cd></Sts><BookgDt><DtTm>{payment.time}</DtTm></BookgDt>"
        f"<AcctSvcrRef>{escape(payment.upstream_ref)}</AcctSvcrRef><NtryDtls><TxDtls><Refs>"
        f"<EndToEndId>{escape(payment.order_no or 'NOTPROVIDED')}</EndToEndId></Refs></TxDtls></NtryDtls></Ntry>"
    )


def _yymmdd(payment: Payment, zone_name: str) -> str:
    return day_of(payment, zone_name).replace("-", "")[2:]


FORMATS: dict[str, Callable[[Sequence[Payment], str], str]] = {
    "csv": csv_statement,
    "sta": mt940_statement,
    "xml": camt_statement,
}
