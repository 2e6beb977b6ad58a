"""Keys of card numbers change while cards are used: everything stays readable, found, and unique."""

import secrets

import pytest
import sqlalchemy as sa

from services.cards import queries, rotation, usecases
from services.cards.cipher import KeyPair, NumberCipher
from services.cards.models import Card
from shared.contracts.cards import BinExhausted, CardNumberTaken
from tests.services.cards.conftest import MASTERCARD, VISA

OLD, NEW = (KeyPair(secrets.token_bytes(32), secrets.token_bytes(32)) for _ in range(2))


def cipher_of(current: str, *, retired: tuple[str, ...] = (), known: tuple[str, ...] = ()) -> NumberCipher:
    """Return a process's cipher: its current pair, what it left behind, and what it only knows."""
    pairs = {"1": OLD, "2": NEW}
    further = {k: KeyPair(pairs[k].key, pairs[k].index_key, is_retired=k in retired) for k in (*retired, *known)}
    pair = pairs[current]
    return NumberCipher(key=pair.key, key_id=current, index_key=pair.index_key, further=further, hiding_key=b"h" * 32)


BEFORE, AWARE, AFTER, LATER = (
    cipher_of("1"),
    cipher_of("1", known=("2",)),
    cipher_of("2", retired=("1",)),
    cipher_of("2"),
)


@pytest.fixture
def make(session, alice):
    def make_card(cipher, **fields):
        card = {"holder_name": "Ada", "currency": "CNY"} | ({} if "number" in fields else {"bin": "411111"})
        return usecases.create_card(session, alice, cipher, **card | fields)

    return make_card


def key_ids(session) -> list[str]:
    return list(session.scalars(sa.select(Card.number_key_id).order_by(Card.id)))


def test_at_each_step_every_process_reads_what_any_has_written(session, alice, make) -> None:
    """A process is at most one step behind: what one seals, all can open and find."""
    make(BEFORE, number=VISA)
    for writer, readers in ((BEFORE, (BEFORE, AWARE)), (AWARE, (AWARE, AFTER)), (AFTER, (AWARE, AFTER))):
        number = MASTERCARD if writer is AWARE else None
        card = make(writer, **({"number": number} if number else {}))
        for reader in readers:
            shown = usecases.reveal_card(session, alice, reader, card_id=card["id"], reason="x")["number"]
            assert [c["id"] for c in queries.search_card(session, alice, reader, number=shown)["items"]] == [card["id"]]


def test_numbers_under_a_retired_key_are_moved_a_few_at_a_time(session, alice, make) -> None:
    cards = [make(BEFORE) for _ in range(5)]
    numbers = [usecases.reveal_card(session, alice, BEFORE, card_id=c["id"], reason="x")["number"] for c in cards]
    session.flush()
    assert rotation.reseal_cards(session, AWARE) == 0
    assert [rotation.reseal_cards(session, AFTER, count_max=2) for _ in range(4)] == [2, 2, 1, 0]
    session.expire_all()
    assert key_ids(session) == ["2"] * 5
    assert rotation.count_key_usage(session, AFTER) == {"current": "2", "retired": ["1"], "cards": {"2": 5, "1": 0}}
    for card, number in zip(cards, numbers, strict=True):
        assert usecases.reveal_card(session, alice, LATER, card_id=card["id"], reason="x")["number"] == number
        assert queries.search_card(session, alice, LATER, number=number)["items"][0]["id"] == card["id"]


@pytest.mark.parametrize(("first", "second"), [(BEFORE, AWARE), (AWARE, AFTER), (AFTER, AWARE), (BEFORE, AFTER)])
def test_number_stays_unique_while_processes_have_different_keys(make, first, second) -> None:
    make(first, number=VISA)
    with pytest.raises(CardNumberTaken):
        make(second, number=VISA)


def test_moved_number_is_as_taken_as_before(session, make) -> None:
    make(BEFORE, number=VISA)
    rotation.reseal_cards(session, AFTER)
    for cipher in (AWARE, AFTER, LATER):
        with pytest.raises(CardNumberTaken):
            make(cipher, number=VISA)


def test_small_bin_is_exhausted_whatever_keys_its_cards_are_under(make, monkeypatch) -> None:
    monkeypatch.setattr("services.cards.domain.numbers.filler_length", lambda bin_, length: 1)
    for cipher in (BEFORE,) * 4 + (AWARE,) * 3 + (AFTER,) * 3:
        make(cipher)
    with pytest.raises(BinExhausted):
        make(AFTER)


def test_two_processes_with_different_keys_do_not_make_one_number_twice(engine_of, alice) -> None:
    """The first has not committed yet: the second waits for it, and then finds the number taken."""
    import threading

    from sqlalchemy.orm import Session

    from shared.rpc.wire import current_call

    number, call = "6011000990139424", current_call.get()
    outcomes: list[str] = []
    with Session(engine_of("cards")) as one:
        usecases.create_card(one, alice, AWARE, number=number, holder_name="x", currency="CNY")

        def make_the_same() -> None:
            current_call.set(call)
            with Session(engine_of("cards")) as two:
                try:
                    usecases.create_card(two, alice, AFTER, number=number, holder_name="x", currency="CNY")
                    outcomes.append("made")
                except CardNumberTaken:
                    outcomes.append("taken")

        thread = threading.Thread(target=make_the_same)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        one.commit()
        thread.join(10)
        assert outcomes == ["taken"]
        one.execute(sa.text("delete from card_events"))
        one.execute(sa.delete(Card).where(Card.number_index.in_(AFTER.indexes(number))))
        one.execute(sa.text("delete from outbox"))
        one.commit()


def test_what_is_hidden_stays_the_same_when_keys_change() -> None:
    assert BEFORE.hide("490154203237518") == AFTER.hide("490154203237518") != BEFORE.hide("490154203237519")


def test_card_that_somebody_holds_is_left_for_the_next_time(engine_of, alice) -> None:
    from sqlalchemy.orm import Session

    with Session(engine_of("cards")) as session, Session(engine_of("cards")) as other:
        card = usecases.create_card(session, alice, BEFORE, bin="411111", holder_name="x", currency="CNY")
        session.commit()
        queries.lock_card(other, alice, card["id"])
        assert rotation.reseal_cards(session, AFTER) == 0
        other.rollback()
        assert rotation.reseal_cards(session, AFTER) == 1
        session.execute(sa.text("delete from card_events"))
        session.execute(sa.delete(Card).where(Card.id == card["id"]))
        session.execute(sa.text("delete from outbox"))
        session.commit()
