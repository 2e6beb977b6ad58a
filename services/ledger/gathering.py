"""Gathering: whoever waits while a statement runs is posted together in the next one. There is no timer.

The first who comes leads: it carries out everything that waits, and hands the lead to the first who came meanwhile.
So nobody waits longer than for the statement that runs, and a hot account costs one lock for many callers.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

GATHERED_MAX: Final = 500

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class _Waiting(Generic[Item, Outcome]):
    """One caller: its item, and a lock that is released when its outcome is there or when it has to lead."""

    __slots__ = ("error", "is_done", "item", "outcome", "signal")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.signal = threading.Lock()
        self.signal.acquire()
        self.is_done = False
        self.outcome: Outcome
        self.error: BaseException | None = None

    def result(self) -> Outcome:
        if self.error is not None:
            raise self.error
        return self.outcome


class Gatherer(Generic[Item, Outcome]):
    """Lets one caller at a time carry out the items of all who wait. Works with threads and greenlets alike."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[Item, Outcome]] = []
        self._is_led = False

    def submit(self, item: Item, carry_out: Callable[[Sequence[Item]], Sequence[Outcome]]) -> Outcome:
        """Return the outcome of this item, carried out alone or with others.

        carry_out: takes up to `GATHERED_MAX` items in the order in which they came, and returns an outcome each.
        Raises: what `carry_out` raised for the items that this one was among.
        """
        mine: _Waiting[Item, Outcome] = _Waiting(item)
        with self._lock:
            self._waiting.append(mine)
            leads, self._is_led = not self._is_led, True
        if not leads:
            mine.signal.acquire()
            if mine.is_done:
                return mine.result()
        self._lead(carry_out)
        return mine.result()

    def _lead(self, carry_out: Callable[[Sequence[Item]], Sequence[Outcome]]) -> None:
        # The leader is the first of those who wait, so its own item is among these.
        with self._lock:
            gathered, self._waiting = self._waiting[:GATHERED_MAX], self._waiting[GATHERED_MAX:]
        try:
            outcomes = carry_out([waiting.item for waiting in gathered])
            for waiting, outcome in zip(gathered, outcomes, strict=True):
                waiting.outcome = outcome
        except BaseException as error:
            for waiting in gathered:
                waiting.error = error
        finally:
            for waiting in gathered:
                waiting.is_done = True
                waiting.signal.release()
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            following = self._waiting[0] if self._waiting else None
            self._is_led = following is not None
        if following is not None:
            following.signal.release()
