"""Files of cards: how they are read, and what becomes of each row on a real database."""

import pytest
import sqlalchemy as sa

from services.cards import usecases
from services.cards.domain.import_files import ROWS_MAX, read_rows
from services.cards.imports.usecases import import_cards
from services.cards.models import Card
from shared.contracts.card_imports import InvalidFile
from tests.conftest import AURORA, BOREALIS, person
from tests.services.cards.conftest import MASTERCARD, VISA

HEADER = "number,bin,holder_name,currency,expiry,merchant_id,card_id"


@pytest.fixture
def take_in(session, alice, cipher):
    """Take in rows, for Alice unless somebody else is named."""

    def take(*rows: str, passport=alice, is_dry_run: bool = False):
        text = "\n".join([HEADER, *rows])
        return import_cards(session, passport, cipher, rows=read_rows(text), is_dry_run=is_dry_run)

    return take


def card_count(session) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Card))


def codes(report) -> list[str | None]:
    return [row["error"] and row["error"]["code"] for row in report["items"]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names the columns"),
        (HEADER, "no row"),
        (f"{HEADER}\n,,\n\n", "no row"),
        ("holder_name,holder_name\nx,y", "stands twice"),
        (f"{VISA},x\n1,2", "Column 1"),
        (f'{HEADER}\n"x', "is no CSV"),
        ("holder_name\n" + "x\n" * (ROWS_MAX + 1), "more than 1000"),
    ],
)
def test_file_that_cannot_be_read_is_refused_whole(text: str, sentence: str) -> None:
    with pytest.raises(InvalidFile) as refusal:
        read_rows(text)
    assert sentence in refusal.value.detail
    assert VISA not in refusal.value.detail


def test_lines_are_those_of_the_file_and_cells_are_trimmed() -> None:
    rows = read_rows('\ufeffholder_name, currency\r\n\r\n" Ada\nLovelace ",CNY\r\nGrace,USD')
    assert [(row.line, row.cells) for row in rows] == [
        (3, {"holder_name": "Ada\nLovelace", "currency": "CNY"}),
        (5, {"holder_name": "Grace", "currency": "USD"}),
    ]


def test_each_row_stands_for_itself(session, take_in, make_card, told) -> None:
    existing = make_card()["id"]
    report = take_in(
        f"{VISA},,Ada,CNY,05/29,{AURORA},",
        f"{VISA},,Ada again,CNY,,,",
        f"{MASTERCARD[:-1]}5,,Ada,CNY,,,",
        ",411111,Grace,USD,,,",
        f",,,,,{BOREALIS},{existing}",
        ",,,,,mer_unknown,",
        f",,,,,{AURORA},car_unknown",
        f",411111,x,CNY,,{AURORA},{existing}",
        ",411111,x,XXX1,,,",
        f",411111,Card {VISA},CNY,,,",
        ",411111,x,CNY,,,,surplus",
    )
    assert (report["created"], report["assigned"], report["refused"]) == (2, 1, 8)
    assert codes(report) == [
        None,
        "card_number_taken",
        "invalid_card_number",
        None,
        None,
        "invalid_request",
        "card_not_found",
        "invalid_request",
        "invalid_money",
        "secret_in_row",
        "invalid_request",
    ]
    assert [row["line"] for row in report["items"]] == list(range(2, 13))
    made = session.get(Card, report["items"][0]["card_id"])
    assert (made.merchant_id, made.expiry, made.number_masked) == (AURORA, "2029-05", "411111******1111")
    assert session.get(Card, existing).merchant_id == BOREALIS
    assert card_count(session) == 3
    assert VISA not in str(report)
    assert [name for name, _ in told()] == ["CardCreated"] * 3 + ["CardAssigned"] * 2


def test_dry_run_says_the_same_and_leaves_nothing(session, take_in, make_card, told) -> None:
    existing = make_card()["id"]
    rows = [f"{VISA},,Ada,CNY,,,", f"{VISA},,Ada,CNY,,,", f",,,,,{AURORA},{existing}", ",411111,Grace,USD,,,"]
    dry = take_in(*rows, is_dry_run=True)
    assert (card_count(session), session.get(Card, existing).merchant_id, len(told())) == (1, None, 1)
    assert [row["card_id"] for row in dry["items"]] == [None, None, existing, None]
    real = take_in(*rows)
    assert codes(dry) == codes(real) == [None, "card_number_taken", None, None]
    assert (dry["created"], dry["assigned"]) == (real["created"], real["assigned"]) == (2, 1)


def test_rows_are_cut_to_the_callers_merchants(take_in, make_card, bob) -> None:
    theirs = make_card(merchant_id=BOREALIS)["id"]
    report = take_in(
        f",411111,Ada,CNY,,{AURORA},",
        f",411111,Ada,CNY,,{BOREALIS},",
        ",411111,Ada,CNY,,,",
        f",,,,,{AURORA},{theirs}",
        passport=bob,
    )
    assert codes(report) == [None, "merchant_not_found", "merchant_required", "card_not_found"]


def test_one_row_that_cannot_be_had_keeps_no_other_card_from_its_merchant(session, take_in, make_card) -> None:
    card_ids = [make_card()["id"] for _ in range(9)]
    closed, moved_twice = card_ids[4], card_ids[0]
    usecases.close_card(session, person("Alice", "administrator", None), card_id=closed, reason="Done.")
    rows = [f",,,,,{AURORA},{card_id}" for card_id in card_ids] + [f",,,,,{BOREALIS},{moved_twice}"]
    report = take_in(*rows)
    assert codes(report) == [None] * 4 + ["card_closed"] + [None] * 5
    assert {session.get(Card, card_id).merchant_id for card_id in card_ids[1:4] + card_ids[5:]} == {AURORA}
    assert session.get(Card, moved_twice).merchant_id == BOREALIS


def test_number_in_the_wrong_column_is_not_repeated(take_in) -> None:
    report = take_in(f",,,,,{AURORA},{VISA}", f",,{VISA},CNY,,,", f",411111,x,{VISA},,,", f",411111,x,CNY,,{VISA},")
    assert codes(report) == ["secret_in_row"] * 4
    assert VISA not in str(report)


def test_a_number_that_stands_twice_in_a_file_makes_one_card(take_in) -> None:
    report = take_in(*[f"{VISA},,Ada,CNY,,,"] * 3)
    assert codes(report) == [None, "card_number_taken", "card_number_taken"]


def test_a_small_bin_gives_a_file_what_it_has(take_in, session, alice, monkeypatch) -> None:
    monkeypatch.setattr("services.cards.domain.numbers.filler_length", lambda bin_, length: 1)
    report = take_in(*[",622848,Ada,CNY,,,"] * 12)
    assert codes(report) == [None] * 10 + ["bin_exhausted"] * 2
