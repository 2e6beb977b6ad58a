"""The supervisor, as the launcher uses it."""

import signal
from pathlib import Path

import pytest

from operations.errors import OperationFailed
from operations.home import Home
from operations.supervision import ProcessState, Supervisor


def test_signal_to_a_program_between_two_starts_reaches_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its process id is 0 then, and kill(0) would reach everybody in our own process group.
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda *arguments: sent.append(arguments))
    waiting = {"audit-1": ProcessState("audit-1", "BACKOFF", 0, 0, "")}
    supervisor = Supervisor(Home(tmp_path))
    monkeypatch.setattr(supervisor, "states", lambda: waiting)
    with pytest.raises(OperationFailed, match="no process"):
        supervisor.signal("audit-1", signal.SIGKILL)
    assert sent == []
