"""Calls about channels: register, change and read them."""

import os
from typing import Any

from sqlalchemy.orm import Session

from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.cipher import channel_cipher
from services.ledger.queries import channels as queries
from services.ledger.usecases import channel_keys, channels
from shared.addresses import allowed_places
from shared.contracts.channels import ChannelKeyUsageView, ChannelPage, ChannelView
from shared.passport import Passport
from shared.rpc.entrypoints import command, query
from shared.ticks import every

OUTBOUND_ALLOW = "OUTBOUND_ALLOW"


def outbound_allow() -> frozenset[str]:
    """Return the places beside public ones that this instance may call, as its environment names them."""
    return allowed_places(os.environ.get(OUTBOUND_ALLOW, ""))


class ChannelCalls(LedgerDependencies):
    """Channels."""

    @command("settings:admin")
    def create_channel(self, session: Session, passport: Passport, **channel: Any) -> ChannelView:
        return channels.create_channel(session, passport, channel_cipher(), allowed=outbound_allow(), **channel)

    @command("settings:admin")
    def update_channel(self, session: Session, passport: Passport, *, code: str, **fields: Any) -> ChannelView:
        return channels.update_channel(
            session, passport, channel_cipher(), allowed=outbound_allow(), code=code, **fields
        )

    @query("settings:read")
    def list_channels(
        self, session: Session, passport: Passport, *, limit: int, cursor: str | None = None
    ) -> ChannelPage:
        return queries.list_channels(session, channel_cipher(), limit=limit, cursor=cursor)

    @query("settings:read")
    def get_channel(self, session: Session, passport: Passport, *, code: str) -> ChannelView:
        return queries.get_channel(session, channel_cipher(), code=code)

    @query("settings:admin")
    def get_channel_key_usage(self, session: Session, passport: Passport) -> ChannelKeyUsageView:
        return channel_keys.count_channel_key_usage(session, channel_cipher())

    @command("settings:admin")
    def tell_channel_keys_changed(self, session: Session, passport: Passport, **change: Any) -> None:
        channel_keys.tell_channel_keys_changed(session, **change)

    @every(seconds=1)
    def reseal_channels(self) -> None:
        cipher = channel_cipher()
        if cipher.retired_key_ids:
            self.database.run(lambda session: channel_keys.reseal_channels(session, cipher))
