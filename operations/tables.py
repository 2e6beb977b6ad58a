"""Plain text tables."""

from collections.abc import Iterable, Sequence

import click


def print_table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their names, each column as wide as it must be."""
    lines = [tuple(map(str, row)) for row in (names, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for line in lines:
        click.echo("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())
