"""Devices by several connections at once, with real commits: limits exact, edges once, no deadlock."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.cards import usecases as cards
from services.cards.devices import heartbeats, logs, usecases
from services.cards.devices.domain import BindingLimits, HeartbeatRule
from shared.errors import Conflict
from shared.kernel_tables import outbox
from shared.rpc.wire import Call, current_call
from shared.times import rfc3339, utc_now
from tests.conftest import AURORA, BOREALIS
from tests.services.cards.conftest import add_merchants

LIMITS = BindingLimits(devices_per_card=3, cards_per_device=2)
RULE = HeartbeatRule(interval_seconds=60, grace_seconds=120)
Work = Callable[[Session], Any]


@pytest.fixture
def engine(engine_of) -> Iterator[sa.Engine]:
    engine = engine_of("cards")
    with Session(engine) as session, session.begin():
        add_merchants(session)
    yield engine
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "truncate cards, card_assignments, card_devices, devices, device_presence, device_logs,"
                " device_log_keys, outbox, merchant_copies cascade"
            )
        )


@pytest.fixture
def at_once(engine, alice) -> Callable[..., list[Any]]:
    """Do several things in a transaction each, all at once. Returns: results, and the classes of refusals."""

    def run(*works: Work) -> list[Any]:
        barrier = threading.Barrier(len(works))

        def one(work: Work) -> Any:
            current_call.set(Call(service="cards", method="test", passport=alice, arguments={}))
            try:
                with Session(engine, expire_on_commit=False) as session, session.begin():
                    session.execute(sa.text("set local lock_timeout = '20s'"))
                    barrier.wait(10)
                    return work(session)
            except Conflict as refusal:
                return type(refusal).__name__

        with ThreadPoolExecutor(len(works)) as pool:
            return list(pool.map(one, works))

    return run


@pytest.fixture
def make_card(at_once, alice, cipher) -> Callable[[], str]:
    def make() -> str:
        card = {"number": None, "bin": "411111", "holder_name": "Ada", "currency": "CNY", "expiry": None}
        [view] = at_once(lambda session: cards.create_card(session, alice, cipher, **card, merchant_id=AURORA))
        return view["id"]

    return make


@pytest.fixture
def binding(alice, cipher) -> Callable[..., Work]:
    """Return the work of binding a device: a known one's id, or what describes one."""

    def of(card_id: str, device_id: str | None = None, fingerprint: str | None = None, limits=LIMITS) -> Work:
        described = {} if device_id else {"fingerprint": fingerprint, "name": "Till", "platform": "ios"}
        return lambda session: usecases.bind_device(
            session, alice, cipher, limits, RULE, card_id=card_id, device_id=device_id, **described
        )["device_id"]

    return of


def open_bindings(engine: sa.Engine, **of: str) -> int:
    [(column, value)] = of.items()
    statement = sa.text(f"select count(*) from card_devices where {column} = :value and unbound_at is null")
    with engine.connect() as connection:
        return int(connection.execute(statement, {"value": value}).scalar_one())


def told(engine: sa.Engine, event: str) -> list[str]:
    with engine.connect() as connection:
        rows = connection.execute(sa.select(outbox.c.envelope).where(outbox.c.routing_key == f"cards.{event}"))
        return [orjson.loads(row.envelope)["resource_id"] for row in rows]


def test_of_many_devices_that_are_bound_to_a_card_at_once_as_many_are_as_the_limit_says(
    engine, at_once, make_card, binding
):
    card_id = make_card()
    results = at_once(*[binding(card_id, fingerprint=f"fp-{n}") for n in range(10)])
    assert results.count("CardDeviceLimitReached") == 7
    assert open_bindings(engine, card_id=card_id) == 3


def test_of_many_cards_that_a_device_is_bound_to_at_once_as_many_are_as_the_limit_says(
    engine, at_once, make_card, binding
):
    ids = [make_card() for _ in range(9)]
    [device_id] = at_once(binding(ids[0], fingerprint="fp"))
    results = at_once(*[binding(card_id, device_id) for card_id in ids[1:]])
    assert results.count("DeviceCardLimitReached") == 7
    assert open_bindings(engine, device_id=device_id) == 2


def test_one_new_fingerprint_on_many_cards_at_once_is_one_device(engine, at_once, make_card, binding):
    ids = [make_card() for _ in range(8)]
    results = at_once(*[binding(card_id, fingerprint="fp") for card_id in ids])
    bound = {result for result in results if result.startswith("dev_")}
    assert len(bound) == 1
    assert results.count("DeviceCardLimitReached") == 6
    with engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from devices")).scalar_one() == 1


def test_the_same_binding_at_once_is_made_once(engine, at_once, make_card, binding):
    card_id, other = make_card(), make_card()
    [device_id] = at_once(binding(other, fingerprint="fp"))
    results = at_once(*[binding(card_id, device_id)] * 6)
    assert results.count("DeviceAlreadyBound") == 5


def test_binding_unbinding_closing_and_assigning_at_once_neither_deadlock_nor_break_the_books(
    engine, at_once, alice, make_card, binding
):
    ids = [make_card() for _ in range(4)]
    wide = BindingLimits(devices_per_card=9, cards_per_device=9)
    devices = [at_once(binding(ids[0], fingerprint=f"fp-{n}"))[0] for n in range(3)]

    def unbind(device_id: str) -> Work:
        return lambda session: usecases.unbind_device(session, alice, RULE, device_id=device_id)

    def assign(merchant_id: str) -> Work:
        return lambda session: cards.assign_cards(session, alice, card_ids=ids[2:], merchant_id=merchant_id)["changed"]

    def block(device_id: str, status: str) -> Work:
        return lambda session: usecases.update_device(
            session, alice, RULE, device_id=device_id, status=status, reason="x"
        )["status"]

    def hear(wanted: list[str]) -> Work:
        return lambda session: heartbeats.hear_devices(session, alice, RULE, device_ids=wanted)["seen"]

    for merchant_id in (BOREALIS, AURORA, BOREALIS, AURORA):
        at_once(
            *[binding(card_id, device_id, limits=wide) for card_id in ids for device_id in devices],
            *[unbind(device_id) for device_id in devices],
            assign(merchant_id),
            block(devices[0], "blocked"),
            hear(devices),
            hear(devices[::-1]),
        )
        at_once(block(devices[0], "bound"))
    at_once(lambda session: cards.close_card(session, alice, card_id=ids[1], reason="x")["id"])
    assert open_bindings(engine, card_id=ids[1]) == 0
    wrong = """
        select d.id from devices d
        left join card_devices b on b.device_id = d.id and b.unbound_at is null
        left join cards c on c.id = b.card_id
        join device_presence p on p.device_id = d.id
        group by d.id, d.status, p.watched_since
        having (d.status = 'bound') <> (count(b.id) > 0) or bool_or(c.merchant_id <> d.merchant_id)
            or (d.status = 'bound') <> (p.watched_since is not null)
    """
    with engine.connect() as connection:
        assert connection.execute(sa.text(wrong)).all() == []


def test_each_edge_is_told_once_by_however_many_instances_look_and_hear(engine, at_once, alice, make_card, binding):
    card_id, wide = make_card(), BindingLimits(devices_per_card=99, cards_per_device=9)
    devices = [at_once(binding(card_id, fingerprint=f"fp-{n}", limits=wide))[0] for n in range(20)]
    at_once(lambda session: heartbeats.hear_devices(session, alice, RULE, device_ids=devices)["seen"])

    def look(session: Session) -> int:
        now = session.scalar(sa.select(sa.func.clock_timestamp()))
        return heartbeats.miss_devices(session, RULE, resumed_at=now - timedelta(hours=1), actor_name="cards")

    def hear(wanted: list[str]) -> Work:
        return lambda session: heartbeats.hear_devices(session, alice, RULE, device_ids=wanted)["seen"]

    for turn in range(1, 4):
        with engine.begin() as connection:
            connection.execute(
                sa.text("update device_presence set last_seen_at = now() - interval '1 h', watched_since = 'epoch'")
            )
        assert sum(at_once(*[look] * 6)) == 20
        assert sorted(told(engine, "DeviceWentOffline")) == sorted(devices * turn)
        assert at_once(hear(devices), hear(devices[::-1]), hear(devices[5:]), look, look) == [20, 20, 15, 0, 0]
        assert sorted(told(engine, "DeviceCameOnline")) == sorted(devices * turn)


def test_a_device_that_is_heard_while_it_is_looked_for_is_not_missed(engine, alice, at_once, make_card, binding):
    [device_id] = at_once(binding(make_card(), fingerprint="fp"))
    at_once(lambda session: heartbeats.hear_device(session, alice, RULE, device_id=device_id)["status"])
    with engine.begin() as connection:
        connection.execute(
            sa.text("update device_presence set last_seen_at = now() - interval '1 h', watched_since = 'epoch'")
        )
    current_call.set(Call(service="cards", method="test", passport=alice, arguments={}))
    with Session(engine) as hearing, Session(engine) as looking:
        heartbeats.hear_device(hearing, alice, RULE, device_id=device_id)
        now = looking.scalar(sa.select(sa.func.clock_timestamp()))
        missed = heartbeats.miss_devices(looking, RULE, resumed_at=now - timedelta(hours=1), actor_name="cards")
        looking.commit()
        hearing.commit()
    assert missed == 0


def test_one_batch_sent_many_times_at_once_is_stored_once(engine, at_once, alice, cipher, make_card, binding):
    [device_id] = at_once(binding(make_card(), fingerprint="fp"))
    time = rfc3339(utc_now())
    rows = [{"event_id": f"e{n}", "time": time, "action": "payment"} for n in range(200)]

    def send(some: list[dict[str, str]]) -> Work:
        return lambda session: logs.store_logs(session, alice, cipher, device_id=device_id, rows=some)["stored"]

    stored = at_once(send(rows), send(rows[::-1]), send(rows[50:]), send(rows), send(rows[:150][::-1]))
    assert sum(stored) == 200
    with engine.connect() as connection:
        count, distinct = connection.execute(
            sa.text("select count(*), count(distinct event_id) from device_logs where source = 'device'")
        ).one()
    assert (count, distinct) == (200, 200)
