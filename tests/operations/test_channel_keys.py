"""The ring of keys of channels' secrets: what the ledger is told at each step of a change, and what it reads of it."""

import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from operations.home import Home
from operations.keys import ChannelKeyRing
from services.ledger.cipher import ChannelCipher

SECRETS = {"query_secret": "whsec_abc"}


def cipher_of(home: Home) -> ChannelCipher:
    return ChannelCipher.from_environment(ChannelKeyRing(home).environment())


def test_ring_goes_from_one_key_to_the_next_and_forgets(tmp_path: Path) -> None:
    home = Home(tmp_path)
    before = ChannelKeyRing(home).environment()
    assert (before["CHANNEL_KEY_ID"], before["CHANNEL_FURTHER_KEYS"]) == ("1", "{}")
    assert before["CHANNEL_KEY"] == home.secrets.get("keys", {})["channel"]  # that of a home from before
    assert ChannelKeyRing(home).add() == ChannelKeyRing(home).add() == "2"
    aware = ChannelKeyRing(home).environment()
    assert {**aware, "CHANNEL_FURTHER_KEYS": "{}"} == before
    assert json.loads(aware["CHANNEL_FURTHER_KEYS"])["2"]["is_retired"] is False
    ChannelKeyRing(home).use_upcoming()
    after = ChannelKeyRing(home).environment()
    assert after["CHANNEL_KEY_ID"] == "2"
    assert json.loads(after["CHANNEL_FURTHER_KEYS"]) == {"1": {"key": before["CHANNEL_KEY"], "is_retired": True}}
    ChannelKeyRing(home).drop_retired()
    assert ChannelKeyRing(home).environment()["CHANNEL_FURTHER_KEYS"] == "{}"
    assert before["CHANNEL_KEY"] not in home.secrets.path.read_text()


def test_every_step_opens_what_the_step_before_and_the_one_after_seal(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = cipher_of(home)
    ChannelKeyRing(home).add()
    aware = cipher_of(home)
    ChannelKeyRing(home).use_upcoming()
    after = cipher_of(home)
    ChannelKeyRing(home).drop_retired()
    last = cipher_of(home)
    assert (after.key_ids, after.retired_key_ids, aware.retired_key_ids) == (["2", "1"], ["1"], [])
    by_first, by_after = first.seal(SECRETS, code="alipay"), after.seal(SECRETS, code="alipay")
    for cipher in (first, aware, after):
        assert cipher.open(by_first, code="alipay") == SECRETS
    for cipher in (aware, after, last):
        assert cipher.open(by_after, code="alipay") == SECRETS
    for cipher, sealed in ((first, by_after), (last, by_first)):
        with pytest.raises(InvalidTag):
            cipher.open(sealed, code="alipay")
