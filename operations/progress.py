"""Steps printed as they go, each with what came out and how long it took."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

NAME_WIDTH = 34


@dataclass
class Step:
    """A running step; `outcome` is what is printed when it ends."""

    outcome: str = "done"


class Progress:
    """Prints steps to a stream, or keeps silent where programs drive the system."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self._is_silent = is_silent

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Print a step's name when it begins and its outcome when it ends."""
        step = Step()
        start = time.monotonic()
        self._print(f"{name:<{NAME_WIDTH}}", end="")
        try:
            yield step
        except BaseException:
            self._print("failed")
            raise
        self._print(f"{step.outcome}  ({time.monotonic() - start:.1f} s)")

    def say(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def _print(self, text: str, *, end: str = "\n") -> None:
        if not self._is_silent:
            sys.stdout.write(text + end)
            sys.stdout.flush()
