"""The telegram service as the bus knows it."""

from typing import Any

import structlog
from environs import Env
from nameko.extensions import DependencyProvider
from sqlalchemy import event
from sqlalchemy.orm import Session

from services.telegram import queries
from services.telegram.client import BotApi
from services.telegram.sender import Sender
from services.telegram.usecases import bindings, notifications
from shared.contracts.devices import DeviceCameOnline, DeviceWentOffline
from shared.contracts.ledger import BalancesChanged
from shared.contracts.settings import ParameterChanged
from shared.contracts.telegram import (
    AdjustmentRule,
    BindingPage,
    BindingView,
    DeviceRule,
    LargeChangeRule,
    NotificationPage,
    NotificationView,
    RulesView,
)
from shared.contracts.users import MerchantCreated, MerchantUpdated
from shared.copies import Merchants, Parameters, require_merchant
from shared.database import Database
from shared.events import Envelope
from shared.messaging import handles, handles_batch
from shared.passport import Passport
from shared.process import database_of
from shared.rpc.entrypoints import command, query

log = structlog.get_logger(__name__)

API_URL_DEFAULT = "https://api.telegram.org"
LARGE_CHANGE_THRESHOLD = "ledger.large_change_threshold"
CHANGES_PER_BATCH = 20  # of up to 500 entries each


class Outgoing(DependencyProvider):
    """The sender of this process, awake whenever a transaction that queued something commits.

    Environment: TELEGRAM_API_URL, the only host that is called; TELEGRAM_BOT_TOKEN, without which messages wait.
    """

    def __init__(self) -> None:
        self._sender: Sender | None = None
        self._bot: BotApi | None = None

    def setup(self) -> None:
        env = Env()
        token = env.str("TELEGRAM_BOT_TOKEN", "")
        if token:
            self._bot = BotApi(env.str("TELEGRAM_API_URL", API_URL_DEFAULT), token)

    def start(self) -> None:
        if self._bot is None:
            log.warning("no TELEGRAM_BOT_TOKEN: messages wait")
            return
        self._sender = Sender(database_of(self.container).run, self._bot)
        self._sender.start()

    def stop(self) -> None:
        if self._sender is not None and self._bot is not None:
            self._sender.stop()
            self._bot.close()

    def get_dependency(self, worker_ctx: Any) -> "Outgoing":
        return self

    def wake_after(self, session: Session) -> None:
        """Wake the sender once the session's transaction has committed."""
        sender = self._sender
        if sender is not None:
            event.listen(session, "after_commit", lambda _: sender.wake())


class TelegramService:
    """Bindings of merchants to groups, rules, and the queue of messages."""

    name = "telegram"

    database = Database()
    merchants = Merchants()
    parameters = Parameters()
    outgoing = Outgoing()

    @query("telegram:read")
    def list_bindings(self, session: Session, passport: Passport, **filters: Any) -> BindingPage:
        return queries.list_bindings(session, passport, **filters)

    @command("telegram:operate")
    def create_binding(self, session: Session, passport: Passport, *, merchant_id: str, **fields: str) -> BindingView:
        require_merchant(session, passport, merchant_id)
        return bindings.create_binding(session, merchant_id=merchant_id, **fields)

    @command("telegram:operate")
    def update_binding(
        self, session: Session, passport: Passport, *, binding_id: str, changes: dict[str, str]
    ) -> BindingView:
        return bindings.update_binding(session, passport, binding_id=binding_id, changes=changes)

    @command("telegram:operate")
    def delete_binding(self, session: Session, passport: Passport, *, binding_id: str) -> None:
        bindings.delete_binding(session, passport, binding_id=binding_id)

    @query("telegram:read")
    def get_rules(self, session: Session, passport: Passport, *, binding_id: str) -> RulesView:
        return queries.get_rules(session, passport, binding_id=binding_id)

    @command("telegram:operate")
    def change_rules(
        self,
        session: Session,
        passport: Passport,
        *,
        binding_id: str,
        large_change: LargeChangeRule,
        adjustment: AdjustmentRule | None = None,
        device: DeviceRule | None = None,
    ) -> RulesView:
        return bindings.change_rules(
            session, passport, binding_id=binding_id, large_change=large_change, adjustment=adjustment, device=device
        )

    @command("telegram:operate")
    def send_test(self, session: Session, passport: Passport, *, binding_id: str) -> NotificationView:
        self.outgoing.wake_after(session)
        return notifications.queue_test(session, passport, binding_id=binding_id)

    @query("telegram:read")
    def list_notifications(self, session: Session, passport: Passport, **filters: Any) -> NotificationPage:
        return queries.list_notifications(session, passport, **filters)

    @query("telegram:read")
    def get_notification(self, session: Session, passport: Passport, *, notification_id: str) -> NotificationView:
        return queries.get_notification(session, passport, notification_id=notification_id)

    @command("telegram:operate")
    def retry_notification(self, session: Session, passport: Passport, *, notification_id: str) -> NotificationView:
        self.outgoing.wake_after(session)
        return notifications.retry_notification(session, passport, notification_id=notification_id)

    @handles_batch(BalancesChanged, size=CHANGES_PER_BATCH)
    def on_balances_changed(self, session: Session, envelopes: list[Envelope]) -> None:
        # Money moves all the time, and seldom in large amounts or by hand: only a queued message is looked for.
        if notifications.queue_changes(
            session,
            entries={envelope["event_id"]: envelope["payload"]["entries"] for envelope in envelopes},
            default_threshold=str(self.parameters.get(LARGE_CHANGE_THRESHOLD)),
        ):
            self.outgoing.wake_after(session)

    @handles(DeviceWentOffline, DeviceCameOnline)
    def on_device_edge(self, session: Session, envelope: Envelope, event: DeviceWentOffline | DeviceCameOnline) -> None:
        if notifications.queue_device_edge(session, event_id=envelope["event_id"], edge=event):
            self.outgoing.wake_after(session)

    @handles(ParameterChanged)
    def on_parameter_changed(self, session: Session, envelope: Envelope, event: ParameterChanged) -> None:
        self.parameters.take(session, event)

    @handles(MerchantCreated, MerchantUpdated)
    def on_merchant_changed(
        self, session: Session, envelope: Envelope, event: MerchantCreated | MerchantUpdated
    ) -> None:
        self.merchants.take(session, event)
