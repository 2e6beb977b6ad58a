"""A session on a real database of tasks, and a scheduler's transactions that really commit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.kernel_tables import outbox

TASK = "balance_check"


@pytest.fixture
def session(session_of) -> Session:
    return session_of("tasks")


def events_in(session: Session) -> list[dict[str, Any]]:
    """Return the envelopes of the events that were told of, in their order."""
    return [orjson.loads(text) for text in session.scalars(sa.select(outbox.c.envelope).order_by(outbox.c.id))]


@pytest.fixture
def transaction(engine_of) -> Iterator[Callable[[], Any]]:
    """Give transactions that commit; afterwards the tables are as a migration leaves them."""
    engine = engine_of("tasks")
    with engine.connect() as connection:
        tasks = connection.execute(sa.text("select * from tasks")).mappings().all()

    @contextmanager
    def begin() -> Iterator[Session]:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    yield begin
    with engine.begin() as connection:
        connection.execute(sa.text("truncate tasks, task_runs, task_run_logs, outbox"))
        for task in tasks:
            columns = ", ".join(task)
            values = ", ".join(f":{name}" for name in task)
            connection.execute(sa.text(f"insert into tasks ({columns}) values ({values})"), dict(task))
