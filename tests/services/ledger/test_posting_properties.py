"""Whatever is posted, the invariants of RELIABILITY.md hold in PostgreSQL."""

from collections.abc import Callable

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from services.ledger.posting import Posting
from services.ledger.sums import fold_deltas
from services.ledger.verification import prove
from shared.rpc.wire import Answer
from tests.conftest import AURORA, BOREALIS
from tests.services.ledger.conftest import batch, change, post_all, single, view_in

_SIGNED = {321: 1, 324: 1, 325: 1, 326: 0, 322: -1, 323: -1, 331: -1, 342: -1, 341: 1}

changes = st.builds(
    lambda code, minor, user, merchant, currency: change(
        type=code,
        amount=f"{'-' if (_SIGNED[code] or (1 if minor % 2 else -1)) < 0 else ''}{minor}",
        user_id=user,
        merchant_id=merchant,
        currency=currency,
        reason="a reason",
    ),
    st.sampled_from(sorted(_SIGNED)),
    st.integers(1, 300),
    st.sampled_from(["user-1", "user-2", None]),
    st.sampled_from([AURORA, BOREALIS]),
    st.sampled_from(["CNY", "JPY"]),
)
requests = st.one_of(
    st.builds(single, changes),
    st.builds(batch, st.lists(changes, min_size=1, max_size=6), is_atomic=st.booleans()),
)
statements = st.lists(st.one_of(st.lists(requests, min_size=1, max_size=6), st.just("fold")), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(statements)
def test_invariants_hold_after_any_statements(
    engine_of: Callable[[str], sa.Engine], wanted: list[list[Posting] | str]
) -> None:
    with Session(engine_of("ledger")) as session:  # closed without a commit
        expected: dict[tuple[str, str, str], int] = {}
        for statement in wanted:
            if isinstance(statement, str):
                fold_deltas(session)
                continue
            outcomes = post_all(session, *statement)
            for posting, outcome in zip(statement, outcomes, strict=True):
                _add_up(expected, posting, outcome)
        _check(session, expected)


def _add_up(expected: dict[tuple[str, str, str], int], posting: Posting, outcome: object) -> None:
    """Keep the balances that the answers promise, in the plainest way."""
    if not isinstance(outcome, Answer):
        return
    items = view_in(outcome)["items"] if posting.is_batch else [{"entry": outcome.result}]
    for made, item in zip(posting.changes, items, strict=True):
        if "entry" not in item:
            continue
        place = (made.merchant_id, made.holder_id, made.currency)  # type: ignore[union-attr]
        expected[place] = expected.get(place, 0) + made.amount  # type: ignore[union-attr]
        assert expected[place] >= 0  # I2, as the caller sees it
        assert item["entry"]["balance"].replace(".", "").lstrip("0") == str(expected[place]).lstrip("0")


def _check(session: Session, expected: dict[tuple[str, str, str], int]) -> None:
    found = session.execute(sa.text("select merchant_id, holder_id, currency, balance from accounts")).all()
    assert {tuple(row[:3]): row[3] for row in found} == expected  # I1, I4
    report = prove(session, mode="full")  # I3, I5: versions, chain, last balance, sums, trial balance
    assert report["faults"] == []
    count = session.execute(sa.text("select count(*) from entries")).scalar_one()
    assert report["entries"] == count
