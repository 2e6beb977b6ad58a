"""Acts on mismatches in one transaction: many read what they need at once, and tell of what they did at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.corrections import Sides
from services.ledger.domain.days import DayOf
from services.ledger.queries.figures import days_of_books
from shared import outbox
from shared.events import Event

Result = TypeVar("Result")


class Batch:
    """The acts of one transaction, one after the other; one act alone is a batch too.

    Rows that only tell what was done (histories, what a correction posted, events) wait here until they are flushed.
    """

    def __init__(self, session: Session) -> None:
        """Begin with nothing read, and nothing to write."""
        self._session = session
        self._rows: list[tuple[sa.Executable, dict[str, Any]]] = []
        self._events: list[Event] = []
        self._mismatches: dict[str, Any] = {}
        self._sides: dict[str, Sides] = {}
        self._acted_on: set[str] = set()
        self._day_of: DayOf | None = None

    def know(self, mismatches: dict[str, Any], sides: dict[str, Sides]) -> None:
        """Take in mismatches, locked, and what is known of their sides, by the mismatches' ids."""
        self._mismatches, self._sides = mismatches, sides

    @contextmanager
    def one(self, mismatch_id: str) -> Iterator[None]:
        """Act on one mismatch: what is refused meanwhile leaves nothing behind.

        What was done to its order before is written first, and then its sides are read anew.
        """
        row = self._mismatches.get(mismatch_id)
        order_no = None if row is None else row.order_no or row.id
        if order_no in self._acted_on:
            self.flush()
            self._sides.pop(mismatch_id, None)
        elif order_no is not None:
            self._acted_on.add(order_no)
        rows, events = len(self._rows), len(self._events)
        try:
            with self._session.begin_nested():
                yield
        except BaseException:
            del self._rows[rows:], self._events[events:]
            raise

    def mismatch(self, mismatch_id: str) -> Any:
        """Return the row of a mismatch that is known; None where it has to be read."""
        return self._mismatches.get(mismatch_id)

    def sides(self, mismatch_id: str) -> Sides | None:
        """Return the sides of a mismatch that are known; None where they have to be read."""
        return self._sides.get(mismatch_id)

    def day_of(self, zone_name: str) -> DayOf:
        """Return which day of the books an instant is of."""
        if self._day_of is None:
            self._day_of = days_of_books(self._session, zone_name)
        return self._day_of

    def add(self, statement: sa.Executable, row: dict[str, Any]) -> None:
        """Have a row written by a statement."""
        self._rows.append((statement, row))

    def tell(self, event: Event) -> None:
        """Have an event told."""
        self._events.append(event)

    def flush(self) -> None:
        """Write all that waits: by statement, in the order in which each was first asked for."""
        waiting: dict[sa.Executable, list[dict[str, Any]]] = {}
        for statement, row in self._rows:
            waiting.setdefault(statement, []).append(row)
        for statement, rows in waiting.items():
            self._session.execute(statement, rows)
        outbox.add(self._session, *self._events)
        self._rows, self._events = [], []


def alone(session: Session, act: Callable[[Batch], Result]) -> Result:
    """Do one act, and write what tells of it."""
    batch = Batch(session)
    result = act(batch)
    batch.flush()
    return result
