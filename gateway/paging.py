"""Lists: one page as JSON, or all matching rows as CSV, page after page from the service."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from flask import Response, request, stream_with_context

from gateway import answers, authorization
from gateway.context import context
from gateway.csv_rows import csv_text
from gateway.rpc import call
from shared.errors import Unavailable
from shared.paging import LIMIT_MAX, Page

PAGE_TRIES_MAX = 3


@dataclass(frozen=True)
class Listing:
    """Which list a view wants: the service, its method, the filters."""

    service: str
    method: str
    arguments: dict[str, Any]


def listing(service: str, method: str, /, **filters: Any) -> Listing:
    """Name the list that a route answers; `Blueprint.listing` makes the answer of it."""
    return Listing(service, method, filters)


def respond(wanted: Listing, *, columns: list[str], pick: answers.Pick, name: str) -> Response:
    """Answer a list: one page of JSON, or with `Accept: text/csv` all rows that match.

    columns: the columns of the CSV, in order.
    name: what the CSV file is called.
    """
    if not _wants_csv():
        page: Page = call(wanted.service, wanted.method, **wanted.arguments)
        items = [pick(item) for item in page["items"]]
        response = answers.json_response({"items": items, "next_cursor": page["next_cursor"]}, 200)
        return _with_archived_before(response, page)
    first = call(wanted.service, wanted.method, **wanted.arguments | {"limit": LIMIT_MAX})
    rows = stream_with_context(_rows(wanted, first, columns, pick))
    response = Response(
        rows, mimetype="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}.csv"'}
    )
    response.headers["Content-Type"] = "text/csv; charset=utf-8; header=present"
    return _with_archived_before(response, first)


def _with_archived_before(response: Response, page: Page) -> Response:
    """Say before which instant rows of the range have left for archives, where the service says that some have."""
    instant = cast("Mapping[str, str | None]", page).get("archived_before")
    if instant is not None:
        response.headers["Archived-Before"] = instant
    return response


def _wants_csv() -> bool:
    return request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv"


def _rows(wanted: Listing, page: Page, columns: list[str], pick: answers.Pick) -> Iterator[str]:
    yield from csv_text(columns, map(pick, page["items"]), with_header=True)
    while page["next_cursor"] is not None:
        page = _next_page(wanted, page["next_cursor"])
        yield from csv_text(columns, map(pick, page["items"]), with_header=False)


def _next_page(wanted: Listing, cursor: str) -> Page:
    """Return a further page, for somebody who is still allowed to have it.

    A page that fails for good breaks the connection: a file that is cut short must not look whole.
    """
    for tries_left in reversed(range(PAGE_TRIES_MAX)):
        context().renew_deadline()
        authorization.check_again()
        try:
            page: Page = call(
                wanted.service, wanted.method, **wanted.arguments | {"limit": LIMIT_MAX, "cursor": cursor}
            )
        except Unavailable:
            if not tries_left:
                raise
        else:
            return page
    raise AssertionError("unreachable")
