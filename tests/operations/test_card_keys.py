"""The ring of card number keys: what the cards service is told at each step of a change."""

import json
from pathlib import Path

from operations.home import Home
from operations.keys import CardKeyRing, card_number_keys
from services.cards.cipher import NumberCipher


def test_ring_goes_from_one_pair_to_the_next_and_forgets(tmp_path: Path) -> None:
    home = Home(tmp_path)
    before = card_number_keys(home)
    assert (before["PAN_KEY_ID"], before["PAN_FURTHER_KEYS"]) == ("1", "{}")
    assert CardKeyRing(home).add() == CardKeyRing(home).add() == "2"

    aware = card_number_keys(home)
    assert {**aware, "PAN_FURTHER_KEYS": "{}"} == before
    assert json.loads(aware["PAN_FURTHER_KEYS"])["2"]["is_retired"] is False

    CardKeyRing(home).use_upcoming()
    after = card_number_keys(home)
    old = json.loads(after["PAN_FURTHER_KEYS"])["1"]
    assert after["PAN_KEY_ID"] == "2"
    assert old == {"key": before["PAN_KEY"], "index_key": before["PAN_INDEX_KEY"], "is_retired": True}
    assert after["PAN_HIDING_KEY"] == before["PAN_HIDING_KEY"] == before["PAN_INDEX_KEY"]

    CardKeyRing(home).drop_retired()
    assert card_number_keys(home)["PAN_FURTHER_KEYS"] == "{}"
    assert before["PAN_KEY"] not in home.secrets.path.read_text()


def test_service_reads_what_the_ring_says(tmp_path: Path) -> None:
    home = Home(tmp_path)
    before = NumberCipher.from_environment(card_number_keys(home))
    sealed = before.seal("4111111111111111", card_id="car_1")
    CardKeyRing(home).add()
    CardKeyRing(home).use_upcoming()
    after = NumberCipher.from_environment(card_number_keys(home))
    assert after.open(sealed, card_id="car_1") == "4111111111111111"
    assert (after.key_id, after.retired_key_ids) == ("2", ["1"])
    assert before.index("4111111111111111") in after.indexes("4111111111111111")
    assert before.hide("x") == after.hide("x")
