"""How often somebody failed lately, so that guessing is slow and costs nobody else anything."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable

FAILURES_MAX = 60
WINDOW_SECONDS = 60.0
PLACES_MAX = 10_000


class Failures:
    """Failures by where they come from, of this process. A place that has none left to make waits for the window."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, place: str) -> None:
        """Note a failure."""
        times = self._at.setdefault(place, deque(maxlen=FAILURES_MAX))
        times.append(self._clock())
        self._at.move_to_end(place)
        while len(self._at) > PLACES_MAX:
            self._at.popitem(last=False)

    def seconds_to_wait(self, place: str) -> float:
        """Return how long this place must wait; 0 where it need not."""
        times = self._at.get(place)
        if times is None or len(times) < FAILURES_MAX:
            return 0.0
        return max(0.0, times[0] + WINDOW_SECONDS - self._clock())
