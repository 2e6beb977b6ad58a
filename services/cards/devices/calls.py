"""Calls about devices: bind, list, change, unbind, hear them, and take their logs."""

from typing import Any

from sqlalchemy.orm import Session

from services.cards.cipher import number_cipher
from services.cards.devices import heartbeats, log_queries, logs, queries, usecases
from services.cards.devices.domain import BindingLimits, HeartbeatRule
from shared.contracts.devices import (
    BoundCardPage,
    BoundDevicePage,
    BoundDeviceView,
    DeviceLogPage,
    DevicePage,
    DeviceView,
    HeartbeatsView,
    HeartbeatView,
    LogRowsView,
)
from shared.copies import Parameters
from shared.database import Database
from shared.passport import Passport
from shared.rpc.entrypoints import command, query
from shared.ticks import every

LOOK_SECONDS = 5


class DeviceCalls:
    """The devices of cards. The service that this is a part of has the database and the parameters."""

    name: str
    database: Database
    parameters: Parameters

    def binding_limits(self) -> BindingLimits:
        """Return how many devices a card, and how many cards a device may have."""
        return BindingLimits(
            devices_per_card=int(self.parameters.get("cards.max_devices_per_card")),
            cards_per_device=int(self.parameters.get("cards.max_cards_per_device")),
        )

    def heartbeat_rule(self) -> HeartbeatRule:
        """Return how often devices are to be heard of, and how late they may be."""
        return HeartbeatRule(
            interval_seconds=int(self.parameters.get("cards.device_heartbeat_seconds")),
            grace_seconds=int(self.parameters.get("cards.device_grace_seconds")),
        )

    @query("cards:read")
    def list_devices(self, session: Session, passport: Passport, **filters: Any) -> DevicePage:
        return queries.list_devices(session, passport, self.heartbeat_rule(), **filters)

    @query("cards:read")
    def get_device(self, session: Session, passport: Passport, *, device_id: str) -> DeviceView:
        return queries.get_device(session, passport, self.heartbeat_rule(), device_id=device_id)

    @query("cards:read")
    def list_card_devices(self, session: Session, passport: Passport, **page: Any) -> BoundDevicePage:
        return queries.list_card_devices(session, passport, self.heartbeat_rule(), **page)

    @query("cards:read")
    def list_device_cards(self, session: Session, passport: Passport, **page: Any) -> BoundCardPage:
        return queries.list_device_cards(session, passport, **page)

    @query("cards:read")
    def list_device_logs(self, session: Session, passport: Passport, **filters: Any) -> DeviceLogPage:
        return log_queries.list_logs(session, passport, **filters)

    @command("cards:operate")
    def bind_device(self, session: Session, passport: Passport, *, card_id: str, **device: Any) -> BoundDeviceView:
        return usecases.bind_device(
            session,
            passport,
            number_cipher(),
            self.binding_limits(),
            self.heartbeat_rule(),
            card_id=card_id,
            **device,
        )

    @command("cards:operate")
    def update_device(self, session: Session, passport: Passport, *, device_id: str, **fields: Any) -> DeviceView:
        return usecases.update_device(session, passport, self.heartbeat_rule(), device_id=device_id, **fields)

    @command("cards:operate")
    def unbind_device(self, session: Session, passport: Passport, *, device_id: str, **which: Any) -> DeviceView:
        return usecases.unbind_device(session, passport, self.heartbeat_rule(), device_id=device_id, **which)

    @command("cards:operate")
    def store_device_logs(self, session: Session, passport: Passport, *, device_id: str, rows: Any) -> LogRowsView:
        return logs.store_logs(session, passport, number_cipher(), device_id=device_id, rows=rows)

    @command("cards:operate")
    def hear_device(self, session: Session, passport: Passport, *, device_id: str) -> HeartbeatView:
        return heartbeats.hear_device(session, passport, self.heartbeat_rule(), device_id=device_id)

    @command("cards:operate")
    def hear_devices(self, session: Session, passport: Passport, *, device_ids: list[str]) -> HeartbeatsView:
        return heartbeats.hear_devices(session, passport, self.heartbeat_rule(), device_ids=device_ids)

    @every(seconds=LOOK_SECONDS)
    def miss_devices(self) -> None:
        if not self.parameters.get("modules.cards.enabled"):
            return  # nobody is heard, so nobody is missed; switched on again, devices have their grace from then on
        rule = self.heartbeat_rule()
        resumed_at = self.database.run(heartbeats.look)
        missed = heartbeats.DEVICES_PER_LOOK
        while missed == heartbeats.DEVICES_PER_LOOK:
            missed = self.database.run(
                lambda session: heartbeats.miss_devices(session, rule, resumed_at=resumed_at, actor_name=self.name)
            )
