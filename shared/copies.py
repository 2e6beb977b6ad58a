"""Copies of what other services own and this one needs often: parameters and merchants.

A copy is fed by events and repaired by a periodic call, so that a service works on while the owner is down.
Source: DESIGN.md "Who owns what".
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
import structlog
from nameko.extensions import DependencyProvider
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.config import process_config
from shared.contracts.settings import PARAMETERS, ParameterChanged, ParameterValue
from shared.contracts.users import MerchantCreated, MerchantMissing, MerchantNotFound, MerchantUpdated
from shared.kernel_tables import merchant_copies, parameter_copies
from shared.paging import LIMIT_MAX
from shared.passport import Passport, service_passport
from shared.rpc.entrypoints import Caller

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0  # a change must reach every instance within 5 s
REPAIR_SECONDS = 60.0
AFTER_FAILURE_SECONDS = 5.0


def _upsert_newer(session: Session, table: sa.Table, key: str, values: dict[str, Any]) -> None:
    """Write a copy's row unless we have a newer version of it: events may come late, twice, out of order."""
    statement = insert(table).values(values)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[key],
            set_={name: statement.excluded[name] for name in values if name != key},
            where=table.c.version < statement.excluded.version,
        )
    )


class _Copies(DependencyProvider):
    """What both kinds of copies need: a way to call the owner."""

    caller = Caller()

    def get_dependency(self, worker_ctx: Any) -> Any:
        return self

    def _database(self) -> Any:
        return next(d for d in self.container.dependencies if d.attr_name == "database")

    def _call(self, service: str, method: str, **arguments: Any) -> Any:
        passport = service_passport(process_config().service)
        return self.caller.client.call(service, method, passport=passport, timeout=3, **arguments).result


class Parameters(_Copies):
    """The parameters in force, as this process knows them. `get` costs a dictionary look-up."""

    def __init__(self) -> None:
        self._values: dict[str, ParameterValue] = {}
        self._is_stopping = threading.Event()

    def get(self, key: str) -> ParameterValue:
        """Return the parameter's value; its default while nobody has changed it."""
        return self._values.get(key, PARAMETERS[key].default)

    def take(self, session: Session, event: ParameterChanged) -> None:
        """Take in what the settings service told; every instance sees it within `LOOK_SECONDS`."""
        _take_parameter(session, event.key, event.value, event.version)

    def start(self) -> None:
        # Two threads: a settings service that does not answer must not keep us from what we have been told.
        for work, pause_seconds in ((self._look, LOOK_SECONDS), (self._repair, REPAIR_SECONDS)):
            threading.Thread(target=self._repeat, args=(work, pause_seconds), daemon=True).start()

    def stop(self) -> None:
        self._is_stopping.set()

    def _repeat(self, work: Callable[[], None], pause_seconds: float) -> None:
        while not self._is_stopping.is_set():
            pause = pause_seconds
            try:
                work()
            except Exception as error:  # a copy may be old; its keeper may not die of that
                log.warning("parameters may be old", error=str(error).split("\n")[0])
                pause = min(pause_seconds, AFTER_FAILURE_SECONDS)
            self._is_stopping.wait(pause)

    def _look(self) -> None:
        with self._database().engine.connect() as connection:
            rows = connection.execute(sa.select(parameter_copies.c.key, parameter_copies.c.value)).all()
        self._values = {row.key: row.value for row in rows}

    def _repair(self) -> None:
        parameters = self._call("settings", "list_parameters", limit=LIMIT_MAX, cursor=None)["items"]

        def take_all(session: Session) -> None:
            for parameter in parameters:
                _take_parameter(session, parameter["key"], parameter["value"], parameter["version"])

        self._database().run(take_all)


def _take_parameter(session: Session, key: str, value: ParameterValue, version: int) -> None:
    _upsert_newer(session, parameter_copies, "key", {"key": key, "value": value, "version": version})


class Merchants(_Copies):
    """The merchants that this service has heard of, or asks for when it has not."""

    def __init__(self) -> None:
        self._known: set[str] = set()  # merchants are never deleted

    def take(self, session: Session, event: MerchantCreated | MerchantUpdated) -> None:
        """Take in what the users service told."""
        _take_merchant(session, event.payload())

    def fetch(self, merchant_id: str) -> None:
        """Ask the users service for a merchant and keep what it says. Raises: MerchantNotFound, Unavailable."""
        merchant = self._call("users", "get_merchant", merchant_id=merchant_id)
        self._database().run(lambda session: _take_merchant(session, merchant | {"merchant_id": merchant["id"]}))

    def ensure(self, merchant_ids: Iterable[str]) -> None:
        """Make sure of many merchants at once, outside any transaction.

        Raises: MerchantNotFound for the first that does not exist; Unavailable.
        """
        unknown = set(merchant_ids) - self._known
        if not unknown:
            return
        query = sa.select(merchant_copies.c.merchant_id).where(merchant_copies.c.merchant_id.in_(unknown))
        here = self._database().run(lambda session: set(session.scalars(query)))
        for merchant_id in sorted(unknown - here):
            self.fetch(merchant_id)
        self._known |= unknown


def _take_merchant(session: Session, merchant: dict[str, Any]) -> None:
    columns = ("merchant_id", "code", "name", "status", "version")
    _upsert_newer(session, merchant_copies, "merchant_id", {name: merchant[name] for name in columns})


_MERCHANT = sa.text(
    "select merchant_id, code, name, status, version from merchant_copies where merchant_id = :merchant_id"
)


def require_merchant(session: Session, passport: Passport, merchant_id: str) -> sa.Row[Any]:
    """Return the copy of a merchant: code, name, status.

    Raises, in order: MerchantNotFound for one outside the caller's merchants; MerchantMissing for one that this
    service has not heard of, upon which the kernel asks for it and does the work again.
    """
    if not passport.sees(merchant_id):
        raise MerchantNotFound()
    row = session.execute(_MERCHANT, {"merchant_id": merchant_id}).first()
    if row is None:
        raise MerchantMissing(merchant_id)
    return row
