"""A session on a real database of cards, the merchants that it knows, and a cipher."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.cards import usecases
from services.cards.cipher import NumberCipher
from shared.kernel_tables import merchant_copies, outbox
from tests.conftest import AURORA, BOREALIS

VISA, MASTERCARD = "4111111111111111", "5555555555554444"


@pytest.fixture(scope="session")
def cipher() -> NumberCipher:
    return NumberCipher(key=bytes(range(32)), key_id="k1", index_key=bytes(range(32, 64)))


def add_merchants(session: Session) -> None:
    """Let the service have heard of both merchants."""
    session.execute(
        sa.insert(merchant_copies),
        [
            {"merchant_id": merchant_id, "code": merchant_id, "name": merchant_id, "status": "active", "version": 1}
            for merchant_id in (AURORA, BOREALIS)
        ],
    )


@pytest.fixture
def session(session_of) -> Session:
    session = session_of("cards")
    add_merchants(session)
    return session


@pytest.fixture
def make_card(session, alice, cipher):
    """Make a card; a fresh number under a BIN unless one is given."""

    def make(passport=alice, **fields: Any):
        card = {
            "number": None,
            "bin": None if fields.get("number") else "411111",
            "holder_name": "Ada Lovelace",
            "currency": "CNY",
            "expiry": "2029-05",
            "merchant_id": None,
        }
        return usecases.create_card(session, passport, cipher, **card | fields)

    return make


@pytest.fixture
def told(session):
    """Return the events that were told of, as (name, envelope)."""

    def read() -> list[tuple[str, dict[str, Any]]]:
        import orjson

        rows = session.execute(sa.select(outbox.c.envelope).order_by(outbox.c.id)).scalars()
        return [(e["event"], e) for e in map(orjson.loads, rows)]

    return read
