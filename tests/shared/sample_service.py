"""A small service for the kernel's tests: it makes things, hears of them, and breaks on demand."""

import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import outbox
from shared.database import Database
from shared.errors import Conflict
from shared.events import Envelope, Event
from shared.kernel_tables import metadata
from shared.messaging import handles, handles_batch
from shared.passport import Passport
from shared.rpc.entrypoints import command, query, rpc
from shared.ticks import every

TABLES = """
create table things (name text primary key);
create table heard (name text, handler text, actor text);
create table ticks (at timestamptz default now());
"""


@dataclass(frozen=True, kw_only=True)
class ThingMade(Event):
    """A thing was made."""

    service = "sample"
    resource_type = "thing"

    thing_id: str


class ThingExists(Conflict):
    """There is such a thing already."""


class SampleService:
    """Makes things."""

    name = "sample"

    database = Database()

    @command("cards:operate")
    def make_thing(self, session: Session, passport: Passport, *, name: str, seconds: float = 0) -> dict[str, str]:
        """Make a thing, slowly if wanted."""
        found = session.execute(sa.text("select 1 from things where name = :name"), {"name": name}).first()
        if found:
            raise ThingExists(f"{name} exists.")
        session.execute(sa.text("insert into things values (:name)"), {"name": name})
        outbox.add(session, ThingMade(thing_id=name))
        time.sleep(seconds)
        return {"name": name, "made_by": passport.actor_name}

    @command("cards:operate", stores_answer=False)
    def make_secret(self, session: Session, passport: Passport, *, name: str) -> dict[str, str]:
        """Make a thing with a secret."""
        self.database  # noqa: B018  # a service reaches its dependencies as attributes
        session.execute(sa.text("insert into things values (:name)"), {"name": name})
        return {"secret": "s3cret-" + name}

    @command(None)
    def make_quietly(self, session: Session, passport: Passport, *, name: str) -> None:
        """Make a thing, and answer nothing."""
        session.execute(sa.text("insert into things values (:name)"), {"name": name})

    @command(None)
    def fail(self, session: Session, passport: Passport, *, name: str) -> None:
        """Write something, and then break."""
        session.execute(sa.text("insert into things values (:name)"), {"name": name})
        raise ZeroDivisionError(name)

    @query("cards:read")
    def count_things(self, session: Session, passport: Passport) -> int:
        """Count the things."""
        return int(session.execute(sa.text("select count(*) from things")).scalar_one())

    @query("cards:read")
    def count_things_twice(self, session: Session, passport: Passport) -> list[int]:
        """Count the things before and after somebody else has made one."""
        counting, making = sa.text("select count(*) from things"), sa.text("insert into things values ('between')")
        before = session.execute(counting).scalar_one()
        self.database.run(lambda another: another.execute(making))
        return [int(before), int(session.execute(counting).scalar_one())]

    @query("cards:read")
    def write_in_query(self, session: Session, passport: Passport) -> None:
        """Try to write where only reading is allowed."""
        session.execute(sa.text("insert into things values ('sly')"))

    @query(None)
    def sleep_in_database(self, session: Session, passport: Passport, *, seconds: float) -> float:
        """Wait inside PostgreSQL."""
        session.execute(sa.text("select pg_sleep(:seconds)"), {"seconds": seconds})
        return seconds

    @rpc(None, is_repeatable=True)
    def echo(self, passport: Passport, **arguments: Any) -> dict[str, Any]:
        """Answer what was sent."""
        return arguments

    @handles(ThingMade)
    def on_thing_made(self, session: Session, envelope: Envelope, event: ThingMade) -> None:
        """Note the thing; poison breaks, and slow takes its time."""
        row = {"name": event.thing_id, "actor": envelope["actor"]["name"]}
        session.execute(sa.text("insert into heard values (:name, 'one', :actor)"), row)
        if event.thing_id.startswith("poison"):
            raise ValueError("poison")
        if event.thing_id.startswith("slow"):
            time.sleep(1)

    @handles_batch(size=100)
    def record_all(self, session: Session, envelopes: list[Envelope]) -> None:
        """Note every event; one named batch-poison breaks the batch that it is in."""
        rows = [{"name": e["resource_id"], "actor": e["actor"]["name"]} for e in envelopes]
        session.execute(sa.text("insert into heard values (:name, 'all', :actor)"), rows)
        if any(e["resource_id"] == "batch-poison" for e in envelopes):
            raise ValueError("poison")

    @every(seconds=0.2)
    def tick(self) -> None:
        """Note that time goes by."""
        self.database.run(lambda session: session.execute(sa.text("insert into ticks default values")))


def make_tables(engine: sa.Engine) -> None:
    """Make the kernel's tables and the service's own."""
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.text(TABLES))
