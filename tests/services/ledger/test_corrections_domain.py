"""Plans of corrections: the same sides make the same plan, anything else another; and from what amount on it waits."""

from dataclasses import fields, replace
from typing import Any

import pytest

from services.ledger.domain.corrections import (
    OrderSide,
    RecordSide,
    Sides,
    adjusting_type,
    canonical,
    digest_of,
    needs_approval,
    plan,
)
from services.ledger.domain.days import days_of
from shared.contracts.mismatches import MismatchOutdated, NotCorrectable, OrderTermsRequired

ORDER = OrderSide(
    order_no="P-1",
    merchant_id="mer_aurora",
    user_id="user-1",
    kind="payment",
    currency="CNY",
    channel="alipay",
    status="partially_refunded",
    amount=1000,
    refunded=300,
    given_back=300,
    held=0,
    fee=5,
    fee_percent="0.5",
    fee_source="channel",
    upstream_ref="up-0",
    settled_at="2026-11-22T23:30:00Z",
)
RECORD = RecordSide(
    id=1,
    upstream_ref="up-1",
    order_no="P-1",
    status="success",
    amount=900,
    fee=1,
    currency="CNY",
    occurred_at="2026-11-22T23:00:00Z",
    voided_by=None,
)
SIDES = Sides(kind="amount_mismatch", order=ORDER, record=RECORD)


def planned(sides: Sides = SIDES, **terms: Any) -> dict[str, Any]:
    return plan(sides, **{"to": "upstream", "reason": "Asked.", "day_of": days_of("UTC")} | terms)


def test_the_same_sides_make_the_same_plan_in_the_same_bytes() -> None:
    assert canonical(planned()) == canonical(planned(replace(SIDES)))
    assert digest_of(planned()) == digest_of(planned())


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 1100}, {"refunded": 400, "given_back": 400}, {"given_back": 301}, {"fee": 6},
        {"upstream_ref": "up-9"}, {"user_id": None}, {"settled_at": "2026-11-22T23:31:00Z"}, {"kind": "purchase"},
    ],
)  # fmt: skip
def test_another_order_makes_another_plan(change: dict[str, Any]) -> None:
    assert digest_of(planned(replace(SIDES, order=replace(ORDER, **change)))) != digest_of(planned())


@pytest.mark.parametrize("change", [{"amount": 800}, {"upstream_ref": "up-2"}, {"status": "failed"}])
def test_another_record_makes_another_plan(change: dict[str, Any]) -> None:
    assert digest_of(planned(replace(SIDES, record=replace(RECORD, **change)))) != digest_of(planned())


@pytest.mark.parametrize("terms", [{"to": "local"}, {"reason": "Guessed."}, {"day_of": days_of("Asia/Shanghai")}])
def test_other_terms_make_another_plan(terms: dict[str, Any]) -> None:
    assert digest_of(planned(**terms)) != digest_of(planned())


def test_every_field_of_the_order_that_a_correction_changes_or_repeats_is_pinned() -> None:
    content = planned()["order"]
    assert {f.name for f in fields(OrderSide)} == content["before"].keys() | (content.keys() - {"before", "after"})


def test_an_entry_counts_for_the_day_of_the_order_in_the_platforms_zone() -> None:
    assert [entry["day"] for entry in planned()["entries"]] == ["2026-11-22"]
    assert [entry["day"] for entry in planned(day_of=days_of("Asia/Shanghai"))["entries"]] == ["2026-11-23"]


def test_what_comes_in_is_posted_before_what_goes_out() -> None:
    failed = replace(SIDES, kind="status_mismatch", record=replace(RECORD, status="failed"))
    assert [(e["amount"], e["bucket"]) for e in planned(failed)["entries"]] == [
        (1000, "consumption"), (5, "fees"), (-300, "refund"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("minor", "currency", "threshold", "waits"),
    [
        (100_000, "CNY", "1000.00", False),
        (100_001, "CNY", "1000.00", True),
        (1000, "JPY", "1000.00", False),
        (1001, "JPY", "1000.00", True),
        (1_000_000_001, "USDT", "1000.00", True),
        (1, "JPY", "0.5", True),
        (1, "CNY", "0", True),
        (0, "CNY", "0", False),
    ],
)
def test_over_the_threshold_is_more_than_it_in_the_currencys_own_units(
    minor: int, currency: str, threshold: str, waits: bool
) -> None:
    assert needs_approval({"stakes": [[minor, currency]]}, threshold) is waits


def test_what_is_at_stake_is_what_moves_or_what_both_sides_differ_by() -> None:
    assert planned()["stakes"] == [[100, "CNY"]]
    assert planned(to="local")["stakes"] == [[100, "CNY"]]
    lacking = Sides(kind="missing_upstream", order=ORDER, record=None)
    assert planned(lacking)["stakes"] == [[1305, "CNY"]]
    assert planned(lacking, to="local")["stakes"] == [[1000, "CNY"]]
    foreign = replace(SIDES, record=replace(RECORD, currency="USD"))
    assert planned(foreign, to="local")["stakes"] == [[1000, "CNY"], [900, "USD"]]
    nobodys = Sides(kind="missing_local", order=None, record=replace(RECORD, status="refunded"))
    assert planned(nobodys, to="local")["stakes"] == [[900, "CNY"]]


@pytest.mark.parametrize(
    ("sides", "refusal"),
    [
        (replace(SIDES, record=replace(RECORD, voided_by="cor_1")), MismatchOutdated),
        (replace(SIDES, order=None), MismatchOutdated),
        (Sides(kind="missing_upstream", order=ORDER, record=None, speaker_id=1), MismatchOutdated),
        (
            Sides(kind="missing_upstream", order=replace(ORDER, status="failed"), record=None),
            MismatchOutdated,
        ),
        (Sides(kind="duplicate_upstream", order=ORDER, record=RECORD), MismatchOutdated),
        (Sides(kind="duplicate_upstream", order=ORDER, record=RECORD, speaker_id=9), NotCorrectable),
        (Sides(kind="missing_local", order=None, record=RECORD), OrderTermsRequired),
        (replace(SIDES, record=replace(RECORD, amount=299)), NotCorrectable),
        (replace(SIDES, record=replace(RECORD, currency="USD")), NotCorrectable),
        (replace(SIDES, record=replace(RECORD, status="pending")), NotCorrectable),
    ],
)
def test_what_cannot_be_followed_is_refused(sides: Sides, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        planned(sides)


@pytest.mark.parametrize(
    ("kind", "code"),
    [("recharge", 326), ("withdraw", 326), ("payment", 326), ("paid_reset", 326), ("purchase", 335), ("renewal", 335)],
)
def test_an_order_is_adjusted_by_the_type_of_its_group(kind: str, code: int) -> None:
    assert adjusting_type(kind) == code
