"""What others may know of cards that come by file: what became of each row."""

from typing import TypedDict

from shared.errors import ErrorView, InvalidRequest


class ImportedRowView(TypedDict):
    """What became of one row. `line` is that of the file, in which the header is line 1; a row may have several."""

    line: int
    card_id: str | None
    number_masked: str | None
    error: ErrorView | None


class ImportView(TypedDict):
    """What became of a file. After a dry run nothing has."""

    is_dry_run: bool
    created: int
    assigned: int
    refused: int
    items: list[ImportedRowView]


class InvalidFile(InvalidRequest):
    """This file cannot be read."""


class SecretInRow(InvalidRequest):
    """A card number or a token stands in a column that is not its own."""
