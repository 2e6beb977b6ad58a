"""The emulator as a running server on loopback, and its control API as methods."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simulators.serving import Control, Serving
from simulators.telegram.app import create_app

SIMULATED_TOKEN = "1000000001:simulated-bot-token-which-is-no-secret"  # noqa: S105


class ControlClient(Control):
    """The control API of an emulator."""

    def messages(self, chat_id: int | None = None) -> list[dict[str, Any]]:
        """Answer the bot's messages, oldest first."""
        query = {} if chat_id is None else {"chat_id": str(chat_id)}
        items: list[dict[str, Any]] = self._send("GET", "messages", **query).json()["items"]
        return items

    def order_fault(self, kind: str, **fields: Any) -> None:
        """Order a fault, see `faults.Fault`."""
        self._send("POST", "faults", {"kind": kind, **fields})

    def name_chat(self, chat_id: int, title: str) -> None:
        """Give a chat its title."""
        self._send("PUT", f"chats/{chat_id}", {"title": title})

    def member_writes(self, chat_id: int, text: str, **fields: Any) -> dict[str, Any]:
        """Let a person write in a chat; answers the update."""
        body = {"chat_id": chat_id, "text": text, **fields}
        update: dict[str, Any] = self._send("POST", "updates", body).json()
        return update


class RunningSimulator(ControlClient, Serving):
    """An emulator served by threads of this process."""

    def __init__(self, port: int, token: str) -> None:
        Serving.__init__(self, create_app(token), "127.0.0.1", port)
        ControlClient.__init__(self, f"http://{self.place}")
        self.token = token


def start_simulator(port: int = 0, token: str = SIMULATED_TOKEN) -> RunningSimulator:
    """Serve an emulator on 127.0.0.1; port 0 takes a free one."""
    return RunningSimulator(port, token)


@contextmanager
def running_simulator(port: int = 0, token: str = SIMULATED_TOKEN) -> Iterator[RunningSimulator]:
    """Serve an emulator for the length of a block."""
    simulator = start_simulator(port, token)
    try:
        yield simulator
    finally:
        simulator.stop()
