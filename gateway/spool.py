"""Records on disk until somebody has taken them, so that neither a crash nor a silent broker loses one.

Each process writes to a directory of its own and holds a lock on it while it lives; whoever finds a directory whose
lock is free adopts what lies in it. There is no fsync: what a process wrote survives it, not the machine's power.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from itertools import count, islice
from pathlib import Path

from shared.ids import new_id

BATCH_RECORDS = 500
SPOOL_BYTES_MAX = 1024**3
_LOCK_FILE = "lock"

Take = Callable[[list[bytes]], None]


class SpoolFull(Exception):
    """So much waits already that no more is taken."""


class Spool:
    """Lines appended by any number of threads, and handed over in batches by one."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._directory = self._root / new_id("spool")
        self._directory.mkdir(parents=True, mode=0o700)
        self._own_lock = _locked(self._directory)
        self._lock = threading.Lock()
        self._numbers = count()
        self._segment: FileIO | None = None
        self.bytes_waiting = 0

    def append(self, record: bytes) -> None:
        """Write one record, which holds no line break. Raises: SpoolFull, OSError."""
        with self._lock:
            if self.bytes_waiting > SPOOL_BYTES_MAX:
                raise SpoolFull
            if self._segment is None:
                self._segment = FileIO(self._directory / f"{next(self._numbers):012}.lines", "w")
            self._segment.write(record + b"\n")
            self.bytes_waiting += len(record) + 1

    def hand_over(self, take: Take) -> None:
        """Give everything that waits to `take`, in batches; what it took is gone from here.

        When `take` raises, the rest stays; a batch may then be given again, so that `take` must not mind.
        """
        with self._lock:
            if self._segment is not None:
                self._segment.close()
                self._segment = None
        for path in _segments(self._directory):
            size = path.stat().st_size
            _give(path, take)
            with self._lock:
                self.bytes_waiting -= size

    def adopt(self, take: Take) -> None:
        """Give to `take` what processes have left behind that live no more."""
        for directory in self._root.iterdir():
            if directory == self._directory or (lock := _locked(directory)) is None:
                continue
            with contextlib.closing(lock):
                for path in _segments(directory):
                    _give(path, take)
                (directory / _LOCK_FILE).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    directory.rmdir()

    def close(self) -> None:
        """Let go of the directory; what still waits in it is for the next process to adopt."""
        with self._lock:
            if self._segment is not None:
                self._segment.close()
                self._segment = None
        if not _segments(self._directory):
            (self._directory / _LOCK_FILE).unlink(missing_ok=True)
            self._directory.rmdir()
        if self._own_lock is not None:
            self._own_lock.close()


def _locked(directory: Path) -> FileIO | None:
    """Return the directory's lock, held; None when another process holds it or this is no spool."""
    try:
        lock = FileIO(os.open(directory / _LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600), "r+")
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.lines"))


def _give(path: Path, take: Take) -> None:
    with path.open("rb") as lines:
        for batch in _batches(line for line in lines if line.endswith(b"\n")):
            take([line[:-1] for line in batch])
    path.unlink()


def _batches(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(islice(lines, BATCH_RECORDS)):
        yield batch
