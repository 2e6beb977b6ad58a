"""An audit database to write to, and a way to write."""

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from services.audit import usecases


@pytest.fixture
def session(session_of: Callable[[str], Session]) -> Session:
    """A session on the audit service's database, rolled back after the test."""
    return session_of("audit")


@pytest.fixture
def record(session: Session) -> Callable[..., int]:
    """Record envelopes as one batch. Returns: how many rows were written."""
    return lambda *envelopes: usecases.record_events(session, envelopes)
