"""The books: daily checks and the rows behind them, the figures of a month, closed days."""

from typing import Any
from urllib.parse import urlencode

from gateway.blueprint import API_PREFIX, Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import PageQuery
from gateway.schemas.books import (
    CheckRowQuery,
    CheckRowSchema,
    ClosedDaySchema,
    DailySchema,
    DayQuery,
    DayToCloseSchema,
    MonthlySchema,
    MonthQuery,
)
from gateway.terms import needs, within

FIGURES_SECONDS_MAX = 30

blueprint = Blueprint("books", __name__, description="The four daily checks, the month's figures, closed days.")


@blueprint.get("/reconciliations/daily")
@needs("mismatches:read")
@within(seconds=FIGURES_SECONDS_MAX)
@blueprint.arguments(DayQuery, location="query")
@blueprint.response(200, DailySchema)
def read_daily_checks(query: dict[str, Any]) -> Any:
    """Check a day: what is expected, what is there, how far apart they are, and where to see the rows behind."""
    daily = call("ledger", "read_daily_checks", **query)
    items = [item | {"rows": _rows_behind(query["date"], item)} for item in daily["items"]]
    return daily | {"items": items}


def _rows_behind(date: str, check: dict[str, Any]) -> str:
    """Return where the rows of a check that do not agree are listed."""
    query = {"date": date, "check": check["name"], "currency": check["currency"]}
    if check["channel"] is not None:
        query["channel"] = check["channel"]
    elif check["unit"] == "amount":  # the other is over all channels
        query["no_channel"] = "true"
    return f"{API_PREFIX}/reconciliations/daily/rows?{urlencode(query)}"


@blueprint.get("/reconciliations/daily/rows")
@needs("mismatches:read")
@within(seconds=FIGURES_SECONDS_MAX)
@blueprint.arguments(CheckRowQuery, location="query")
@blueprint.listing(CheckRowSchema)
def list_daily_check_rows(query: dict[str, Any]) -> Listing:
    """List the rows behind a daily check, by order number: those that do not agree, or all."""
    channel = {"channel": ""} if query.pop("no_channel", False) else {}
    return listing("ledger", "list_daily_check_rows", **query | channel)


@blueprint.get("/reconciliations/monthly")
@needs("mismatches:read")
@within(seconds=FIGURES_SECONDS_MAX)
@blueprint.arguments(MonthQuery, location="query")
@blueprint.response(200, MonthlySchema)
def read_monthly_figures(query: dict[str, Any]) -> Any:
    """Show what a month came to by currency and channel, with the days that it is the sum of."""
    return call("ledger", "read_monthly_figures", **query)


@blueprint.post("/closed-days")
@needs("mismatches:admin")
@within(seconds=FIGURES_SECONDS_MAX)
@blueprint.arguments(DayToCloseSchema)
@blueprint.response(201, ClosedDaySchema)
def close_day(body: dict[str, Any]) -> Any:
    """Close a day for good: its totals are sealed, and what comes later stands apart."""
    return call("ledger", "close_day", **body)


@blueprint.get("/closed-days")
@needs("mismatches:read")
@blueprint.arguments(PageQuery, location="query")
@blueprint.listing(ClosedDaySchema)
def list_closed_days(query: dict[str, Any]) -> Listing:
    """List closed days, the last first."""
    return listing("ledger", "list_closed_days", **query)
