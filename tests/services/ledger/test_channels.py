"""Channels on a real database: secrets go in and never come out, and each change is told of with its reason."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlalchemy.orm import Session

from services.ledger.cipher import ChannelCipher
from services.ledger.models.channels import channels as channels_table
from services.ledger.queries import channels as queries
from services.ledger.usecases import channel_keys, channels
from shared.contracts.channels import (
    ChannelCodeTaken,
    ChannelNotFound,
    ChannelsAreForAll,
    InvalidChannelConfig,
)
from shared.errors import InvalidRequest
from shared.paging import InvalidCursor
from tests.conftest import AURORA, person
from tests.services.ledger.channels import CIPHER, SECRET, new_secret, register

ALICE = person("Alice", "administrator", None)
HTTP = {"base_url": "https://pay.example.com", "query_secret": SECRET, "callback_secrets": [SECRET]}


def update(session: Session, code: str = "alipay", reason: str = "New terms.", **fields: Any) -> Any:
    return channels.update_channel(session, ALICE, CIPHER, allowed=frozenset(), code=code, reason=reason, **fields)


def told(session: Session) -> list[dict[str, Any]]:
    envelopes = session.scalars(sa.text("select envelope::text from outbox order by id"))
    return [orjson.loads(envelope) for envelope in envelopes]


def test_secrets_are_sealed_and_never_shown(session: Session) -> None:
    view = register(session, kind="http", config=HTTP, reason="A new platform.")
    assert view["config"] == {"base_url": "https://pay.example.com"}
    assert view["credentials"] == ["callback_secrets", "query_secret"]
    row = queries.channel_row(session, "alipay")
    assert SECRET.encode() not in bytes(row.secrets)
    assert CIPHER.open(row.secrets, code="alipay") == {"query_secret": SECRET, "callback_secrets": [SECRET]}
    shown = [queries.get_channel(session, CIPHER, code="alipay"), *told(session)]
    assert SECRET not in orjson.dumps(shown).decode()
    [event] = told(session)
    assert (event["event"], event["resource_id"], event["payload"]["reason"]) == (
        "ChannelCreated", "alipay", "A new platform.",
    )  # fmt: skip


def test_secrets_of_one_channel_do_not_open_on_another_nor_with_another_key(session: Session) -> None:
    register(session, kind="http", config=HTTP)
    sealed = queries.channel_row(session, "alipay").secrets
    for cipher, code in ((CIPHER, "wechat"), (ChannelCipher(key=b"x" * 32), "alipay")):
        with pytest.raises(InvalidTag):
            cipher.open(sealed, code=code)


def test_secrets_move_to_the_current_key_and_nothing_else_changes(session: Session) -> None:
    for code in ("alipay", "wechat"):
        register(session, code, kind="http", config=HTTP)
    register(session, "files")
    after = ChannelCipher(key=b"n" * 32, key_id="2", further={"1": b"k" * 32}, retired=frozenset({"1"}))
    versions = sa.select(channels_table.c.code, channels_table.c.version).order_by(channels_table.c.code)
    before = session.execute(versions).all()
    usage = {"current": "2", "retired": ["1"]}
    assert channel_keys.count_channel_key_usage(session, after) == usage | {"channels": {"2": 0, "1": 2}}
    assert channel_keys.reseal_channels(session, after) == 2
    assert channel_keys.count_channel_key_usage(session, after) == usage | {"channels": {"2": 2, "1": 0}}
    assert channel_keys.reseal_channels(session, after) == 0
    only_new = ChannelCipher(key=b"n" * 32, key_id="2")
    for code in ("alipay", "wechat"):
        sealed = queries.channel_row(session, code).secrets
        assert only_new.open(sealed, code=code) == {"query_secret": SECRET, "callback_secrets": [SECRET]}
    assert session.execute(versions).all() == before


def test_secrets_that_do_not_open_hold_up_no_others(session: Session) -> None:
    register(session, kind="http", config=HTTP)
    register(session, "wechat", kind="http", config=HTTP)
    spoilt = sa.update(channels_table).where(channels_table.c.code == "alipay").values(secrets=b"x" * 40)
    session.execute(spoilt)
    after = ChannelCipher(key=b"n" * 32, key_id="2", further={"1": b"k" * 32}, retired=frozenset({"1"}))
    assert channel_keys.reseal_channels(session, after) == 1
    assert channel_keys.count_channel_key_usage(session, after)["channels"] == {"2": 1, "1": 0}


def test_change_of_keys_is_told_with_its_reason(session: Session) -> None:
    channel_keys.tell_channel_keys_changed(session, current="2", retired=["1"], reason="The yearly change.")
    [event] = told(session)
    assert (event["event"], event["resource_id"]) == ("ChannelKeysChanged", "2")
    assert event["payload"] == {"key_id": "2", "retired": ["1"], "reason": "The yearly change."}


def test_change_keeps_what_it_does_not_name_and_tells_both_sides_without_secrets(session: Session) -> None:
    register(session, kind="http", config=HTTP | {"fee_percent": "0.6"})
    other = new_secret()
    config = {"query_secret": other, "callback_secrets": None, "fee_percent": "0.5"}
    view = update(session, status="disabled", config=config)
    assert (view["status"], view["version"], view["credentials"]) == ("disabled", 2, ["query_secret"])
    assert view["config"] == {"base_url": "https://pay.example.com", "fee_percent": "0.5"}
    event = told(session)[-1]
    assert event["payload"]["reason"] == "New terms."
    assert event["payload"]["changes"] == {
        "status": {"before": "active", "after": "disabled"},
        "config.fee_percent": {"before": "0.6", "after": "0.5"},
        "credentials.callback_secrets": {"before": "***", "after": None},
        "credentials.query_secret": {"before": "***", "after": "***"},
    }
    assert other not in orjson.dumps(event).decode()


def test_change_that_changes_nothing_tells_nothing(session: Session) -> None:
    register(session)
    assert update(session, status="active", config={})["version"] == 1
    assert len(told(session)) == 1


def test_what_a_kind_needs_cannot_be_taken_out(session: Session) -> None:
    register(session, kind="http", config=HTTP)
    with pytest.raises(InvalidChannelConfig):
        update(session, config={"base_url": None})


@pytest.mark.parametrize("reason", ["", "  "])
def test_change_needs_a_reason(session: Session, reason: str) -> None:
    register(session)
    with pytest.raises(InvalidRequest):
        update(session, name="Other", reason=reason)


def test_code_is_taken_once_and_unknown_ones_are_not_found(session: Session) -> None:
    register(session)
    with pytest.raises(ChannelCodeTaken):
        register(session)
    with pytest.raises(ChannelNotFound):
        update(session, "wechat", name="Other")
    with pytest.raises(ChannelNotFound):
        queries.get_channel(session, CIPHER, code="wechat")


def test_channel_is_changed_only_by_who_sees_all_merchants(session: Session) -> None:
    cut = replace(ALICE, merchants=frozenset({AURORA}))
    with pytest.raises(ChannelsAreForAll):
        register(session, passport=cut)
    register(session)
    with pytest.raises(ChannelsAreForAll):
        channels.update_channel(session, cut, CIPHER, allowed=frozenset(), code="alipay", reason="Why not.", name="X")


def test_list_goes_on_where_the_page_before_ended(session: Session) -> None:
    for code in ("one", "two", "three"):
        register(session, code)
    first = queries.list_channels(session, CIPHER, limit=2, cursor=None)
    rest = queries.list_channels(session, CIPHER, limit=2, cursor=first["next_cursor"])
    assert [item["code"] for item in [*first["items"], *rest["items"]]] == ["three", "two", "one"]
    assert rest["next_cursor"] is None
    with pytest.raises(InvalidCursor):
        queries.list_channels(session, CIPHER, limit=2, cursor="WzEsMl0")
