"""What a request to post is refused for, before and while it is posted."""

import gc
import time
from dataclasses import replace
from threading import Semaphore
from typing import Any

import pytest

from services.ledger.gathering import Gatherer
from services.ledger.usecases import postings as usecases
from shared.contracts.ledger import InsufficientBalance, LedgerBusy, TooManyChanges, WrongSign
from shared.contracts.users import MerchantNotFound
from shared.errors import InvalidRequest, PermissionDenied, ServiceError
from shared.passport import Passport
from tests.conftest import BOREALIS
from tests.services.ledger.conftest import THRESHOLD, Books, call_of, raw_change, view_in


def post_batch(books: Books, passport: Passport, changes: Any, *, is_atomic: bool, key: str | None = None) -> Any:
    call = call_of(passport, key=key, changes=changes)
    answer = usecases.post_balance_changes(
        books, Semaphore(), call, changes=changes, is_atomic=is_atomic, threshold=THRESHOLD
    )
    return view_in(answer)


def refusal(books: Books, passport: Passport, changes: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        post_batch(books, passport, changes, is_atomic=True)
    return caught.value


def post_single(books: Books, passport: Passport, **fields: Any) -> Any:
    raw = raw_change(**fields)
    call = call_of(passport, **raw)
    return usecases.post_balance_change(books, Gatherer(), call, change=raw, threshold=THRESHOLD).result


def test_foreign_merchant_looks_like_one_that_does_not_exist(books: Books, bob: Passport, alice: Passport) -> None:
    with pytest.raises(MerchantNotFound) as foreign:
        post_single(books, bob, merchant_id=BOREALIS)
    with pytest.raises(MerchantNotFound) as unknown:
        post_single(books, alice, merchant_id="mer_nowhere")
    assert foreign.value.to_wire() == unknown.value.to_wire()


def test_admin_type_needs_the_permission(books: Books, alice: Passport, bob: Passport) -> None:
    with pytest.raises(PermissionDenied):
        post_single(books, bob, type=326, amount="1.00", reason="because")
    entry = post_single(books, alice, type=326, amount="1.00", reason="because")
    assert (entry["operator"], entry["reason"]) == ("Alice", "because")


@pytest.mark.parametrize("changes", [None, {}, [], "x"])
def test_batch_is_a_list_with_something_in_it(books: Books, alice: Passport, changes: Any) -> None:
    assert type(refusal(books, alice, changes)) is InvalidRequest


def test_batch_has_at_most_ten_thousand_changes(books: Books, alice: Passport) -> None:
    assert type(refusal(books, alice, [raw_change()] * 10_001)) is TooManyChanges


def test_atomic_batch_names_all_that_is_invalid(books: Books, alice: Passport) -> None:
    error = refusal(books, alice, [raw_change(), raw_change(amount=1.5), raw_change(amount="-1.00")])
    assert type(error) is InvalidRequest
    assert error.errors is not None
    assert list(error.errors) == ["changes.1.amount", "changes.2.amount"]


def test_atomic_batch_with_one_kind_of_error_has_its_code(books: Books, alice: Passport) -> None:
    error = refusal(books, alice, [raw_change(), raw_change(amount="-1.00"), raw_change(amount="-2.00")])
    assert type(error) is WrongSign
    assert error.extra["index"] == 1


def test_atomic_batch_with_a_foreign_merchant_is_not_found(books: Books, bob: Passport) -> None:
    error = refusal(books, bob, [raw_change(), raw_change(merchant_id=BOREALIS)])
    assert type(error) is MerchantNotFound
    assert error.extra["index"] == 1


def test_batch_that_is_not_atomic_reports_each_change(books: Books, bob: Passport) -> None:
    changes = [
        raw_change(),
        raw_change(merchant_id=BOREALIS),
        raw_change(type=999),
        raw_change(amount=1.0),
        raw_change(amount="1.005"),
        raw_change(amount="-1.00"),
        raw_change(type=342, amount="-1.00", reason="x"),
        raw_change(type=323, amount="-100.01"),
        raw_change(order_no=None),
        raw_change(colour="red"),
        "not a change",
        raw_change(type=323, amount="-100.00"),
    ]
    view = post_batch(books, bob, changes, is_atomic=False)
    assert [item["error"]["code"] if "error" in item else item["entry"]["balance"] for item in view["items"]] == [
        "100.00",
        "merchant_not_found",
        "unknown_balance_type",
        "invalid_request",
        "invalid_money",
        "wrong_sign",
        "permission_denied",
        "insufficient_balance",
        "order_number_required",
        "invalid_request",
        "invalid_request",
        "0",
    ]
    assert (view["posted"], view["refused"]) == (2, 10)


def test_refused_atomic_batch_is_kept_under_its_key(books: Books, alice: Passport) -> None:
    changes = [raw_change(type=323, amount="-1.00")]
    for _ in range(2):
        with pytest.raises(InsufficientBalance):
            post_batch(books, alice, changes, is_atomic=True, key="k")
        post_single(books, alice)
    assert post_batch(books, alice, changes, is_atomic=True, key="k2")["posted"] == 1


def test_invalid_batch_may_come_again_under_its_key(books: Books, alice: Passport) -> None:
    with pytest.raises(WrongSign):
        post_batch(books, alice, [raw_change(amount="-1.00")], is_atomic=True, key="k")
    assert post_batch(books, alice, [raw_change()], is_atomic=True, key="k")["posted"] == 1


def test_refused_changes_leave_no_ring_that_holds_their_batch(books: Books, alice: Passport) -> None:
    overdrawn = [raw_change(type=323, amount="-1.00") for _ in range(500)]
    invalid = [raw_change(amount="no amount") for _ in range(500)]
    post_batch(books, alice, overdrawn[:1] + invalid[:1], is_atomic=False)
    gc.collect()
    gc.disable()
    try:
        view = post_batch(books, alice, overdrawn + invalid, is_atomic=False)
        assert view["refused"] == 1_000
        assert gc.collect() < 500
    finally:
        gc.enable()


def test_many_merchants_that_do_not_exist_are_not_all_asked_for(books: Books, alice: Passport) -> None:
    changes = [raw_change(merchant_id=f"mer_{n}") for n in range(500)] + [raw_change()]
    view = post_batch(books, alice, changes, is_atomic=False)
    assert (view["posted"], view["refused"]) == (1, 500)
    assert {item["error"]["code"] for item in view["items"] if "error" in item} == {"merchant_not_found"}
    assert books.asked < 30


def test_batch_waits_for_its_turn_as_long_as_its_caller(books: Books, alice: Passport) -> None:
    slots = Semaphore(0)

    def post() -> Any:
        call = replace(call_of(alice, key="k"), deadline=time.time() + 0.2)
        return usecases.post_balance_changes(
            books, slots, call, changes=[raw_change()], is_atomic=True, threshold=THRESHOLD
        )

    with pytest.raises(LedgerBusy):
        post()
    slots.release()
    assert view_in(post())["posted"] == 1
    assert view_in(post())["posted"] == 1  # the slot was given back
