"""Who waits is carried out together; nobody is forgotten, and each gets its own outcome."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.ledger.gathering import GATHERED_MAX, Gatherer


def test_one_alone_is_carried_out_alone() -> None:
    gatherer: Gatherer[int, int] = Gatherer()
    assert gatherer.submit(3, lambda items: [item * 2 for item in items]) == 6


def test_those_who_come_meanwhile_go_together() -> None:
    gatherer: Gatherer[int, int] = Gatherer()
    gate, carried = threading.Event(), []

    def carry_out(items: Sequence[int]) -> list[int]:
        carried.append(list(items))
        if items[0] == 0:
            gate.wait(5)
        return [item * 2 for item in items]

    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(gatherer.submit, 0, carry_out)
        while not carried:
            pass
        others = [pool.submit(gatherer.submit, n, carry_out) for n in range(1, 20)]
        while len(gatherer._waiting) < 19:
            pass
        gate.set()
        assert first.result(5) == 0
        assert [other.result(5) for other in others] == [n * 2 for n in range(1, 20)]
    assert [len(items) for items in carried] == [1, 19]


def test_error_reaches_all_who_were_carried_out_together_and_nobody_later() -> None:
    gatherer: Gatherer[int, int] = Gatherer()

    def fail(items: Sequence[int]) -> list[int]:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        gatherer.submit(1, fail)
    assert gatherer.submit(2, lambda items: list(items)) == 2


def test_nobody_is_forgotten_under_load() -> None:
    gatherer: Gatherer[int, int] = Gatherer()
    sizes = []

    def carry_out(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return [item + 1 for item in items]

    with ThreadPoolExecutor(32) as pool:
        outcomes = list(pool.map(lambda n: gatherer.submit(n, carry_out), range(5_000)))
    assert outcomes == [n + 1 for n in range(5_000)]
    assert sum(sizes) == 5_000
    assert max(sizes) <= GATHERED_MAX
