"""Another instant for the ledger's statements: entries of a past day, posted by the code that posts today's.

The database's clock is turned for one connection: a function of the same name comes first on its search path. Nothing
of the ledger knows; digests, versions and sums are those of the turned instant.
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session


def turn_clock(session: Session, at: datetime) -> None:
    """Have it be `at` from now on, going on from there, until the transaction ends."""
    now: datetime = session.execute(sa.text("select pg_catalog.clock_timestamp()")).scalar_one()
    turned = f"pg_catalog.clock_timestamp() + interval '{(at - now).total_seconds():.6f} seconds'"
    session.execute(sa.text("create schema if not exists turned"))
    session.execute(
        sa.text(
            "create or replace function turned.clock_timestamp() returns timestamptz language sql"
            f" as $$ select {turned} $$"
        )
    )
    session.execute(sa.text("set local search_path = turned, pg_catalog, public"))
