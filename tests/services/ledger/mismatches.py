"""Mismatches for tests: an order of ours, the platform's records, and what reconciliation makes of them."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.mismatches import Verb
from services.ledger.domain.thresholds import Threshold
from services.ledger.queries.mismatches import MismatchFilter, get_mismatch, list_mismatches
from services.ledger.usecases import corrections, mismatches
from services.ledger.usecases.correction_sides import NewOrder, Terms
from services.ledger.usecases.mismatch_batches import alone
from services.ledger.usecases.reconciliations import create_reconciliation
from services.ledger.verification import prove
from shared.passport import Passport
from shared.times import utc_now
from tests.conftest import person
from tests.services.ledger import orders as order_world
from tests.services.ledger.orders import ALICE, add_merchants
from tests.services.ledger.worlds import add_channel, add_record

CHANNEL = "alipay"
CAROL = person("Carol", "administrator", None)
TERMS = Terms(
    zone_name="UTC", approval_threshold="1000.00", large_change=Threshold("10000.00"), default_fee_percent="0"
)
ALWAYS_WAITS = Terms(
    zone_name="UTC", approval_threshold="0", large_change=Threshold("10000.00"), default_fee_percent="0"
)
WHY = "The platform was asked."
_numbers = itertools.count(1)


def add_world(session: Session) -> None:
    """Have heard of two merchants and registered a channel."""
    add_merchants(session)
    add_channel(session, CHANNEL)


def paid(session: Session, *, amount: str = "10.00", kind: str = "recharge", **fields: Any) -> Any:
    """Make an order and settle it."""
    made = order_world.create(session, kind=kind, amount=amount, **fields)
    return order_world.settle(session, made["order_no"])


def record(session: Session, order_no: str | None, *, amount: int = 1000, **fields: Any) -> str:
    """Write what the platform says of an order. Returns: its reference."""
    ref = f"up-{next(_numbers)}"
    add_record(session, ref, order_no, amount=amount, **{"at": utc_now()} | fields)
    return ref


def says(session: Session, ref: str, **fields: Any) -> None:
    """Have the platform say something else of what it has a reference for."""
    columns = ", ".join(f"{name} = :{name}" for name in fields)
    session.execute(sa.text(f"update upstream_records set {columns} where upstream_ref = :ref"), fields | {"ref": ref})


def reconcile_all(session: Session, *, days: int = 2) -> None:
    """Reconcile today and the days before, without a grace."""
    today = datetime.now(UTC).date()
    for back in range(days):
        create_reconciliation(
            session,
            ALICE,
            channel=CHANNEL,
            day=today - timedelta(days=back),
            zone_name="UTC",
            grace_seconds=0,
            judged_at=utc_now() + timedelta(seconds=1),
        )


def found(session: Session, *statuses: str, passport: Passport = ALICE) -> list[Any]:
    """Return the mismatches that there are, of these statuses only, the oldest first."""
    page = list_mismatches(session, passport, MismatchFilter(statuses=statuses), limit=500, cursor=None)
    return page["items"][::-1]


def the_one(session: Session) -> Any:
    """Reconcile, and return the one mismatch that is open."""
    reconcile_all(session)
    [mismatch] = found(session, "open")
    return mismatch


def correct(
    session: Session,
    mismatch_id: str,
    to: str = "upstream",
    *,
    passport: Passport = ALICE,
    terms: Terms = TERMS,
    reason: str = WHY,
    **new_order: Any,
) -> Any:
    """Correct a mismatch, or propose to."""
    status = alone(
        session,
        lambda batch: corrections.correct_mismatch(
            session,
            passport,
            batch,
            mismatch_id=mismatch_id,
            to=to,
            reason=reason,
            new_order=NewOrder(**new_order),
            terms=terms,
        ),
    )
    return _shown(session, mismatch_id, status)


def _shown(session: Session, mismatch_id: str, status: str) -> Any:
    """Return a mismatch as it is after an act that says which status it has."""
    view = get_mismatch(session, ALICE, mismatch_id=mismatch_id)
    assert view["status"] == status
    return view


def preview(session: Session, mismatch_id: str, to: str = "upstream", *, terms: Terms = TERMS, **new_order: Any) -> Any:
    """Return what correcting would change."""
    return corrections.preview_correction(
        session, ALICE, mismatch_id=mismatch_id, to=to, reason=WHY, new_order=NewOrder(**new_order), terms=terms
    )


def approve(
    session: Session,
    mismatch_id: str,
    *,
    passport: Passport = CAROL,
    content_sha256: str | None = None,
    terms: Terms = TERMS,
) -> Any:
    """Approve what waits."""
    status = alone(
        session,
        lambda batch: corrections.approve_correction(
            session,
            passport,
            batch,
            mismatch_id=mismatch_id,
            content_sha256=content_sha256,
            reason="Checked.",
            terms=terms,
        ),
    )
    return _shown(session, mismatch_id, status)


def reject(session: Session, mismatch_id: str, *, passport: Passport = CAROL) -> Any:
    """Reject what waits."""
    status = alone(
        session,
        lambda batch: corrections.reject_correction(
            session, passport, batch, mismatch_id=mismatch_id, reason="Not so."
        ),
    )
    return _shown(session, mismatch_id, status)


def reverse(session: Session, mismatch_id: str, *, passport: Passport = ALICE, terms: Terms = TERMS) -> Any:
    """Reverse the correction that stands."""
    standing = get_mismatch(session, ALICE, mismatch_id=mismatch_id)["corrections"]
    [done] = [c for c in standing if c["status"] == "applied" and c["reversal_of"] is None]
    return corrections.reverse_correction(session, passport, correction_id=done["id"], reason="A mistake.", terms=terms)


def act(session: Session, mismatch_id: str, verb: Verb, *, passport: Passport = ALICE) -> Any:
    """Reconcile, ignore or reopen."""
    status = alone(
        session,
        lambda batch: mismatches.close_or_reopen(
            session, passport, batch, mismatch_id=mismatch_id, verb=verb, reason=WHY
        ),
    )
    return _shown(session, mismatch_id, status)


def order(session: Session, order_no: str) -> Any:
    """Return an order's row."""
    return session.execute(sa.text("select * from orders where order_no = :n"), {"n": order_no}).one()


def entries_of(session: Session, order_no: str) -> list[tuple[int, int]]:
    """Return an order's entries, type and amount, in their order."""
    query = sa.text("select type, amount from entries where order_no = :n order by account_id, version")
    return [(row.type, row.amount) for row in session.execute(query, {"n": order_no})]


def counted(session: Session, order_no: str) -> list[tuple[str, int]]:
    """Return what an order's corrections count for, bucket and amount."""
    query = sa.text("select bucket, amount from correction_entries where order_no = :n order by account_id, version")
    return [(row.bucket, row.amount) for row in session.execute(query, {"n": order_no})]


def assert_books_are_right(session: Session) -> None:
    """Prove the ledger, and that no order gave back more than was paid."""
    faults = prove(session, mode="full")["faults"]
    assert faults == [], faults[:5]
    too_much = session.execute(
        sa.text(
            """
            select order_no from orders o
             where (select coalesce(sum(amount), 0) from entries e
                     where e.order_no = o.order_no and e.type in (324, 333))
                 + (select coalesce(sum(amount), 0) from archived_refunds a where a.order_no = o.order_no)
                 + (select coalesce(sum(amount), 0) from correction_entries c
                     where c.order_no = o.order_no and c.bucket = 'refund') > o.amount
            """
        )
    ).all()
    assert too_much == []
