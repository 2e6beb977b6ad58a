"""A statement of a million rows in each format: from the upload to the records, and the memory of each process.

`DATABASE_URL=… AMQP_URL=… python -m benchmarks.statements`; the addresses are those of servers where databases may be
made and of a virtual host that nothing else uses. CSV, which is copied as it is, is the floor of the other two, which
are read row by row. Takes about ten minutes.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks.ledger_system import ledger_system
from benchmarks.reconcile import CHANNEL_ROW, Memory, import_statement

MINOR: Final = 1250


def main() -> int:
    """Measure, and print each format, its ratio to the first, and the memory. Returns: 1 when rows are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    options = parser.parse_args()
    missing, floor = 0, 0.0
    for name in options.formats:
        with ledger_system() as system, tempfile.TemporaryDirectory() as folder:
            statement = Path(folder) / "statement"
            with statement.open("w") as file:
                file.writelines(FORMATS[name](options.rows))
            with system.engine.begin() as connection:
                connection.exec_driver_sql(CHANNEL_ROW)
            with Memory(os.getpid()) as memory:
                started = time.perf_counter()
                missing += options.rows - import_statement(system, statement, name)
                seconds = time.perf_counter() - started
            floor = floor or seconds
            size = statement.stat().st_size / 1024**2
            ratio = f"{seconds / floor:>8.1f} of {options.formats[0]}"
            print(f"{name:10}{options.rows} rows of {size:.0f} MiB{seconds:>10.1f} s{ratio}")
            for process, mebibytes in memory.peaks().items():
                print(f"    {process:44}{mebibytes:>8.0f} MiB at most", flush=True)
    return 1 if missing else 0


def csv_lines(rows: int) -> Iterator[str]:
    """Return the lines of a CSV statement."""
    yield "upstream_ref,order_no,amount,fee,currency,status,time\n"
    for n in range(rows):
        yield f"U{n:015},P{n:012},12.50,0.00,EUR,success,2026-11-20T09:30:00Z\n"


def mt940_lines(rows: int) -> Iterator[str]:
    """Return the lines of an MT940 statement as a German bank writes it."""
    yield ":20:BENCHMARK\n:25:10020030/1234567\n:28C:1/1\n:60F:C261119EUR0,\n"
    for n in range(rows):
        yield f":61:2611201120C12,50NTRFNONREF//U{n:015}\n"
        yield f":86:166?00GUTSCHRIFT?109310?20EREF+P{n:012}?21SVWZ+for goods?30BANKDEFF?32SOMEBODY\n"
    yield f":62F:C261120EUR{rows * MINOR // 100},{rows * MINOR % 100:02}\n-\n"


def camt_lines(rows: int) -> Iterator[str]:
    """Return the lines of a camt.053 statement, a transaction an entry."""
    yield '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt>\n'
    for n in range(rows):
        yield '<Ntry><Amt Ccy="EUR">12.50</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>'
        yield f"<BookgDt><Dt>2026-11-20</Dt></BookgDt><AcctSvcrRef>U{n:015}</AcctSvcrRef><NtryDtls><TxDtls><Refs>"
        yield f"<EndToEndId>P{n:012}</EndToEndId></Refs><RltdPties><Dbtr><Nm>Somebody</Nm></Dbtr></RltdPties>"
        yield "<RmtInf><Ustrd>for goods</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>\n"
    yield "</Stmt></BkToCstmrStmt></Document>\n"


FORMATS: Final[dict[str, Callable[[int], Iterator[str]]]] = {
    "csv": csv_lines,
    "mt940": mt940_lines,
    "camt.053": camt_lines,
}

if __name__ == "__main__":
    sys.exit(main())
