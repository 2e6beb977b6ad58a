"""Sealing, opening and indexing of card numbers."""

import base64

import pytest
from cryptography.exceptions import InvalidTag

from services.cards.cipher import NumberCipher, SealedNumber

KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
NUMBER = "4111111111111111"


@pytest.fixture
def cipher():
    return NumberCipher(key=KEY, key_id="k1", index_key=OTHER_KEY)


def test_a_sealed_number_opens_for_its_card_only(cipher):
    sealed = cipher.seal(NUMBER, card_id="car_1")
    assert sealed.key_id == "k1"
    assert NUMBER.encode() not in sealed.sealed
    assert cipher.open(sealed, card_id="car_1") == NUMBER
    with pytest.raises(InvalidTag):
        cipher.open(sealed, card_id="car_2")


def test_the_same_number_is_sealed_differently_each_time(cipher):
    assert cipher.seal(NUMBER, card_id="car_1") != cipher.seal(NUMBER, card_id="car_1")


def test_a_changed_byte_is_found(cipher):
    sealed = cipher.seal(NUMBER, card_id="car_1")
    changed = SealedNumber(sealed.key_id, sealed.sealed[:-1] + bytes([sealed.sealed[-1] ^ 1]))
    with pytest.raises(InvalidTag):
        cipher.open(changed, card_id="car_1")


def test_a_number_of_another_key_is_not_tried(cipher):
    sealed = cipher.seal(NUMBER, card_id="car_1")
    with pytest.raises(LookupError, match="k1"):
        NumberCipher(key=KEY, key_id="k2", index_key=OTHER_KEY).open(sealed, card_id="car_1")


def test_index_is_the_same_for_the_same_number_and_depends_on_the_key(cipher):
    other = NumberCipher(key=OTHER_KEY, key_id="k1", index_key=KEY)
    assert cipher.index(NUMBER) == cipher.index(NUMBER)
    assert cipher.index(NUMBER) != cipher.index("5555555555554444")
    assert cipher.index(NUMBER) != other.index(NUMBER)


@pytest.mark.parametrize("name", ["PAN_KEY", "PAN_KEY_ID", "PAN_INDEX_KEY"])
def test_a_missing_key_is_named(name):
    environ = {
        "PAN_KEY": base64.b64encode(KEY).decode(),
        "PAN_KEY_ID": "k1",
        "PAN_INDEX_KEY": base64.b64encode(OTHER_KEY).decode(),
    }
    NumberCipher.from_environment(environ)
    del environ[name]
    with pytest.raises(KeyError, match=name):
        NumberCipher.from_environment(environ)


def test_short_or_equal_keys_are_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        NumberCipher(key=b"short", key_id="k1", index_key=KEY)
    with pytest.raises(ValueError, match="must differ"):
        NumberCipher(key=KEY, key_id="k1", index_key=KEY)
