"""A transfer between a merchant and a card is decided once: both entries or none, and then only told again."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from services.ledger.queries import entries as queries
from services.ledger.usecases.card_transfers import transfer_card_money
from services.ledger.usecases.postings import log_filter
from services.ledger.verification import prove
from shared.contracts.ledger import CardTransferAltered
from shared.contracts.users import MerchantNotFound
from shared.money import InvalidMoney
from tests.conftest import AURORA, person
from tests.services.ledger.conftest import THRESHOLD, Books
from tests.services.ledger.orders import events, fund, in_calls
from tests.services.ledger.test_ledger_concurrency import assert_proved

ALICE = person("Alice", "administrator", None)


def transfer(session: Session, transfer_id: str = "ctr_1", *, passport: Any = ALICE, **fields: Any) -> Any:
    """Move 10.00 CNY from Aurora's own account to the card car_1, with some fields put differently."""
    valid = {
        "card_id": "car_1",
        "merchant_id": AURORA,
        "direction": "top_up",
        "amount": "10.00",
        "currency": "CNY",
    }
    return transfer_card_money(session, passport, threshold=THRESHOLD, transfer_id=transfer_id, **valid | fields)


def fund_merchant(session: Session, amount: str) -> None:
    fund(session, amount, user_id=None)


def balances(session: Session) -> dict[str, int]:
    rows = session.execute(sa.text("select holder_type, balance from accounts where holder_type <> 'user'"))
    return {row.holder_type: row.balance for row in rows}


def logs(session: Session, passport: Any) -> list[Any]:
    wanted = log_filter(
        zone_name="UTC", date_text=None, from_time="2000-01-01T00:00:00Z", to_time=None, types=[], groups=[],
        min_amount=None, max_amount=None,
    )  # fmt: skip
    return queries.list_balance_logs(session, passport, wanted, card_id="car_1", limit=50, cursor=None)["items"]


def test_what_the_merchant_loses_the_card_gets_and_the_system_account_is_even(session: Session) -> None:
    fund_merchant(session, "30.00")
    assert transfer(session) == {"transfer_id": "ctr_1", "balance": "10.00", "version": 1, "refusal": None}
    assert balances(session) == {"merchant": 2_000, "card": 1_000}
    back = transfer(session, "ctr_2", direction="withdrawal", amount="4.00")
    assert (back["balance"], back["version"]) == ("6.00", 2)
    assert balances(session) == {"merchant": 2_400, "card": 600}
    [trial] = queries.read_trial_balance(session, ALICE)["items"]
    assert trial["sum"] == "0"
    assert {"name": "card_transfers", "balance": "0"} in trial["system_accounts"]
    rows = session.execute(
        sa.text("select holder_type, type, amount from entries where type > 500 order by created_at, version")
    ).all()
    assert [tuple(row) for row in rows] == [
        ("merchant", 511, -1_000), ("card", 511, 1_000), ("card", 512, -400), ("merchant", 512, 400)
    ]  # fmt: skip
    assert prove(session, mode="full")["faults"] == []


def test_asked_again_it_tells_and_does_not_post(session: Session) -> None:
    fund_merchant(session, "30.00")
    first = transfer(session)
    told = events(session)
    assert [transfer(session) for _ in range(3)] == [first] * 3
    assert balances(session) == {"merchant": 2_000, "card": 1_000}
    assert events(session) == told


def test_a_refusal_is_an_outcome_that_stays_though_money_comes(session: Session) -> None:
    fund_merchant(session, "9.99")
    refused = transfer(session)
    assert (refused["balance"], refused["version"]) == (None, None)
    assert refused["refusal"]["code"] == "insufficient_balance"
    assert refused["refusal"]["extra"] == {"available": "9.99", "currency": "CNY"}
    fund_merchant(session, "100.00")
    assert transfer(session) == refused
    assert balances(session) == {"merchant": 10_999}
    assert transfer(session, "ctr_2")["refusal"] is None


def test_a_card_gives_no_more_than_it_has(session: Session) -> None:
    fund_merchant(session, "30.00")
    transfer(session)
    refused = transfer(session, "ctr_2", direction="withdrawal", amount="10.01")
    assert refused["refusal"]["code"] == "insufficient_balance"
    assert balances(session) == {"merchant": 2_000, "card": 1_000}


@pytest.mark.parametrize(
    "altered", [{"amount": "10.01"}, {"direction": "withdrawal"}, {"card_id": "car_2"}, {"merchant_id": "mer_other"}]
)
def test_an_id_with_another_content_is_refused(session: Session, altered: dict[str, str]) -> None:
    fund_merchant(session, "30.00")
    transfer(session)
    with pytest.raises(CardTransferAltered):
        transfer(session, **altered)


@pytest.mark.parametrize("amount", ["0", "-1.00", "1.001", "1e3", "9" * 18])
def test_what_is_no_positive_amount_is_refused(session: Session, amount: str) -> None:
    with pytest.raises(InvalidMoney):
        transfer(session, amount=amount)


def test_another_merchants_card_does_not_exist(session: Session, charlie: Any) -> None:
    with pytest.raises(MerchantNotFound):
        transfer(session, passport=charlie)


def test_account_and_log_of_a_card_are_cut_to_the_callers_merchants(session: Session, bob: Any, charlie: Any) -> None:
    fund_merchant(session, "30.00")
    transfer(session, passport=replace(bob, actor_name="Bob"))
    card = {"card_id": "car_1", "merchant_id": AURORA, "currency": "CNY"}
    account = queries.find_card_account(session, bob, **card)
    assert account is not None
    assert (account["holder_type"], account["holder_id"], account["balance"]) == ("card", "car_1", "10.00")
    assert queries.find_card_account(session, charlie, **card) is None
    [entry] = logs(session, bob)
    assert (entry["type"], entry["group"], entry["amount"], entry["operator"]) == (511, "Platform", "10.00", "Bob")
    assert entry["note"] == "ctr_1 car_1"
    assert logs(session, charlie) == []


def test_what_became_of_a_transfer_cannot_be_changed(own_engine: sa.Engine) -> None:
    with own_engine.connect() as connection:
        granted = connection.execute(
            sa.text(
                "select count(*) from information_schema.role_table_grants where table_name = 'card_transfers'"
                " and privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE') and grantee <> current_user"
            )
        ).scalar_one()
        assert granted == 0
        with pytest.raises(DBAPIError, match="ck_card_transfers_outcome"):
            connection.execute(
                sa.text(
                    "insert into card_transfers (transfer_id, card_id, merchant_id, direction, amount, currency)"
                    " values ('ctr_1', 'car_1', 'mer_1', 'top_up', 1, 'CNY')"
                )
            )


def test_twenty_at_once_with_one_id_post_once_and_hear_the_same(books: Books) -> None:
    books.run(lambda session: fund_merchant(session, "30.00"))
    ask = in_calls(books, lambda session, transfer_id: transfer(session, transfer_id))
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(ask, ["ctr_1"] * 20))
    assert outcomes == [{"transfer_id": "ctr_1", "balance": "10.00", "version": 1, "refusal": None}] * 20
    assert books.run(balances) == {"merchant": 2_000, "card": 1_000}
    assert_proved(books)


def test_forty_at_once_spend_what_there_is_and_no_more(books: Books) -> None:
    books.run(lambda session: fund_merchant(session, "100.00"))
    ask = in_calls(books, lambda session, n: transfer(session, f"ctr_{n}", card_id=f"car_{n % 3}"))
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(ask, range(40)))
    assert Counter(o["refusal"] is None for o in outcomes) == {True: 10, False: 30}
    assert_proved(books)


@pytest.mark.parametrize(
    "tampering",
    [
        "delete from card_transfers",
        "update card_transfers set amount = 999",
        "update card_transfers set card_id = 'car_2'",
        "insert into card_transfers select 'ctr_2', card_id, merchant_id, direction, amount, currency, refusal,"
        " card_account_id, 2, card_balance, merchant_account_id, 3 from card_transfers",
    ],
)
def test_the_proof_finds_a_card_whose_money_is_not_that_of_its_transfers(session: Session, tampering: str) -> None:
    fund_merchant(session, "30.00")
    transfer(session)
    assert prove(session, mode="full")["faults"] == []
    session.execute(sa.text(tampering))
    faults = prove(session, mode="full")["faults"]
    assert {(fault["kind"], fault["merchant_id"]) for fault in faults} == {("card_transfers", AURORA)}


steps = st.lists(
    st.tuples(
        st.sampled_from(("top_up", "withdrawal")), st.integers(1, 400), st.sampled_from(("car_1", "car_2")),
        st.integers(0, 6),
    ),
    min_size=1,
    max_size=25,
)  # fmt: skip


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps)
def test_whatever_is_asked_for_and_asked_for_again_the_books_are_right(
    engine_of: Callable[[str], sa.Engine], wanted: list[tuple[str, int, str, int]]
) -> None:
    with Session(engine_of("ledger")) as session:  # closed without a commit
        fund_merchant(session, "5.00")
        held = {"merchant": 500, "car_1": 0, "car_2": 0}
        first: dict[str, Any] = {}
        for direction, amount, card_id, place in wanted:
            transfer_id = f"ctr_{place}"
            with suppress(CardTransferAltered):
                outcome = transfer(
                    session, transfer_id, direction=direction, amount=f"{amount // 100}.{amount % 100:02}",
                    card_id=card_id,
                )  # fmt: skip
                if transfer_id in first:
                    assert outcome == first[transfer_id]
                    continue
                first[transfer_id] = outcome
                loser, getter = ("merchant", card_id) if direction == "top_up" else (card_id, "merchant")
                assert (outcome["refusal"] is None) == (held[loser] >= amount)
                if outcome["refusal"] is None:
                    held[loser] -= amount
                    held[getter] += amount
        found = session.execute(
            sa.text("select case holder_type when 'card' then holder_id else holder_type end, balance from accounts")
        )
        assert dict.fromkeys(held, 0) | {row[0]: row.balance for row in found} == held
        assert prove(session, mode="full")["faults"] == []
