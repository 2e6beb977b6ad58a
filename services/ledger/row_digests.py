"""The digests of single rows: what a row says, column by column, so that the proof names one that was changed.

An entry's digest is worked out where entries are (`domain.entries`). These rows are few, and PostgreSQL works theirs
out as it writes them.
"""

from collections.abc import Collection, Mapping
from typing import Final

import sqlalchemy as sa

DIGESTS: Final = frozenset(("digest", "order_digest", "row_digest"))
_TYPES: Final[dict[type, str]] = {
    sa.BigInteger: "bigint",
    sa.SmallInteger: "smallint",
    sa.Numeric: "numeric",
    sa.Text: "text",
    sa.Date: "date",
    sa.DateTime: "timestamptz",
    sa.LargeBinary: "bytea",
}


def content_of(table: sa.Table, one: str, *, but: Collection[str] = ()) -> str:
    """Return the SQL of what a row says: all its columns in their order, but for digests and those named.

    one: the row's name in the statement.
    """
    values = (_value(column, one) for column in table.columns if column.name not in DIGESTS and column.name not in but)
    return f"convert_to(jsonb_build_array({', '.join(values)})::text, 'UTF8')"


def _value(column: sa.Column[object], one: str) -> str:
    """Return the SQL of a column's value, which no setting of the session changes."""
    name = f"{one}.{column.name}"
    if isinstance(column.type, sa.DateTime):
        return f"(extract(epoch from {name}) * 1000000)::bigint"
    if isinstance(column.type, sa.LargeBinary):
        return f"encode({name}, 'hex')"
    return name


def inserting(
    table: sa.Table,
    *,
    but: Collection[str] = (),
    now: str | None = None,
    digests: Mapping[str, str] | None = None,
    beside: str = "",
) -> str:
    """Return the SQL that inserts a row, of parameters of its columns' names, with its digests, and returns the row.

    but: columns that make themselves.
    now: a column that is this instant where its parameter is null.
    digests: the SQL of each digest of the row `new`, or `new.` and its name where it is a parameter; by default one
        digest of all that the row says.
    beside: what is joined to `new`.
    """
    columns = [column for column in table.columns if column.name not in DIGESTS and column.name not in but]
    names = ", ".join(column.name for column in columns)
    given = ", ".join(f"{_given(column, is_now=column.name == now)} as {column.name}" for column in columns)
    worked_out = digests or {"digest": f"sha256({content_of(table, 'new', but=but)})"}
    given += "".join(
        f", cast(:{name} as bytea) as {name}" for name, value in worked_out.items() if value == f"new.{name}"
    )
    return (
        f"insert into {table.name} ({names}, {', '.join(worked_out)})"
        f" select {', '.join(f'new.{column.name}' for column in columns)}, {', '.join(worked_out.values())}"
        f" from (select {given}) as new {beside} returning *"
    )


def _given(column: sa.Column[object], *, is_now: bool) -> str:
    value = f"cast(:{column.name} as {_TYPES[type(column.type)]})"
    return f"coalesce({value}, clock_timestamp())" if is_now else value
