"""A file of cards: CSV with a header, and in each row a card to make, or one that exists and gets a merchant. Pure."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from shared.contracts.card_imports import InvalidFile, SecretInRow
from shared.errors import InvalidRequest
from shared.masking import secret_in

COLUMNS = ("number", "bin", "holder_name", "currency", "expiry", "merchant_id", "card_id")
ROWS_MAX = 1_000
CELL_LENGTH_MAX = 100


@dataclass(frozen=True)
class Row:
    """A row's cells by column, without the empty ones. `line` is where it begins in the file."""

    line: int
    cells: dict[str, str]
    has_cells_beyond: bool = False


def read_rows(text: str) -> list[Row]:
    """Return the rows of a file; empty lines are none.

    Raises: InvalidFile, for an unknown, missing or repeated column, no row, or more than `ROWS_MAX`.
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        rows = list(_rows(reader, header))
    except csv.Error as error:
        raise InvalidFile(f"Line {reader.line_num} is no CSV: {error}.") from None
    if not rows:
        raise InvalidFile("The file has no row below its header.")
    return rows


def _check_header(header: list[str]) -> None:
    known = ", ".join(COLUMNS)
    if unknown := [name for name in header if name not in COLUMNS]:
        raise InvalidFile(f"Column {header.index(unknown[0]) + 1} of the header is none of {known}.")
    if len(set(header)) != len(header):
        raise InvalidFile("A column stands twice in the header.")
    if not header:
        raise InvalidFile(f"The first line names the columns: {known}.")


def _rows(reader: "csv._reader", header: list[str]) -> Iterator[Row]:  # type: ignore[name-defined]
    begin, count = reader.line_num + 1, 0
    for cells in reader:
        if any(cell.strip() for cell in cells):
            count += 1
            if count > ROWS_MAX:
                raise InvalidFile(f"The file has more than {ROWS_MAX} rows.")
            named = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}
            yield Row(begin, named, has_cells_beyond=len(cells) > len(header))
        begin = reader.line_num + 1


def check_row(row: Row) -> None:
    """Refuse a row that is neither a card to make nor one to assign.

    Raises, in order: InvalidRequest for cells that no column names, and for one that is too long; SecretInRow;
    InvalidRequest for cells that lack or do not belong to a card that exists.
    """
    if row.has_cells_beyond:
        raise InvalidRequest("The row has more cells than the header has columns.")
    for name, cell in row.cells.items():
        if len(cell) > CELL_LENGTH_MAX:
            raise InvalidRequest.of_field(name, f"At most {CELL_LENGTH_MAX} characters.")
        if name != "number" and secret_in(cell):
            raise SecretInRow.of_field(name, SecretInRow.title)
    needed = ("card_id", "merchant_id") if is_assignment(row) else ("holder_name", "currency")
    if missing := [name for name in needed if name not in row.cells]:
        raise InvalidRequest(
            "A cell is empty.", errors={name: ["Missing data for required field."] for name in missing}
        )
    if is_assignment(row) and (others := sorted(row.cells.keys() - set(needed))):
        raise InvalidRequest(
            "A card that exists gets a merchant and nothing else.",
            errors={name: ["Leave it empty beside card_id."] for name in others},
        )


def is_assignment(row: Row) -> bool:
    """Return whether the row is about a card that exists."""
    return "card_id" in row.cells
