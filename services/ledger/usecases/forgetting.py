"""Callbacks and platforms' raw answers leave when they are old and nothing needs them: a page at a time, told each."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.usecases.payments import Books
from shared import outbox
from shared.contracts.channels import UpstreamMessagesForgotten
from shared.times import rfc3339, utc_now

PAGE_ROWS: Final = 2_000
_FORGET: Final = {
    kind: sa.text(f"select seen, forgotten, last from forget_{kind}(:kept, :after, :rows_max)")
    for kind in ("callbacks", "upstream_answers")
}


def forget_upstream_messages(books: Books, *, kept: timedelta, page_rows: int = PAGE_ROWS) -> int:
    """Delete the callbacks and raw answers that are older than so long, except what something still open needs.

    kept: seven days at least, longer than any platform delivers again; the database refuses less.
    Returns: how many are gone.
    Emits: UpstreamMessagesForgotten, for each page of which something went, in its transaction.
    Idempotent: what is left is looked at again the next time. Of two processes at once, one does the work.
    """
    before = utc_now() - kept
    return sum(_forget(books, kind, kept=kept, before=before, page_rows=page_rows) for kind in _FORGET)


def _forget(books: Books, kind: str, *, kept: timedelta, before: datetime, page_rows: int) -> int:
    after, gone = datetime.min.replace(tzinfo=UTC), 0
    while True:
        page: Any = books.run(lambda session, after=after: _forget_page(session, kind, kept, before, after, page_rows))
        if page is None:
            return gone
        gone += int(page.forgotten)
        if page.seen < page_rows:
            return gone
        after = page.last


def _forget_page(
    session: Session, kind: str, kept: timedelta, before: datetime, after: datetime, page_rows: int
) -> Any:
    """Forget one page. Returns: None where another process is at it."""
    if not session.execute(sa.text("select pg_try_advisory_xact_lock(hashtext('forget_callbacks'))")).scalar_one():
        return None
    page = session.execute(_FORGET[kind], {"kept": kept, "after": after, "rows_max": page_rows}).one()
    if page.forgotten:
        told = UpstreamMessagesForgotten(kind=kind, count=page.forgotten, before=rfc3339(before))
        outbox.add(session, told)
    return page
