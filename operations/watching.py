"""What `up` shows when everything runs: where to sign in, and then every change of a process until Ctrl-C."""

import json
import signal
import time

from operations.supervision import STATE_RUNNING, ProcessState
from operations.system import System

LOOK_SECONDS = 1


def sign_in_lines(system: System) -> list[str]:
    """Return the address, and the first administrator's name and password while they are the first ones."""
    lines = [f"Countinghouse runs at {system.url}"]
    if system.home.first_sign_in.exists():
        first = json.loads(system.home.first_sign_in.read_text())
        lines += [
            f"Sign in as {first['username']} with the first password {first['password']}",
            f"(also in {system.home.first_sign_in})",
        ]
    return lines


def watch(system: System) -> None:
    """Tell of every process that stops or starts, until Ctrl-C, or until somebody else runs `down`."""
    try:
        before = system.states()
        system.progress.say("Ctrl-C stops everything. What the processes say: ./countinghouse logs -f")
        while before:
            time.sleep(LOOK_SECONDS)
            now = system.states()
            for name, process in now.items():
                told = _change(before.get(name), process)
                if told:
                    system.progress.say(f"{time.strftime('%H:%M:%S')}  {name} {told}")
            before = now
    except KeyboardInterrupt:
        system.progress.say("")
        return
    system.progress.say("It was stopped from elsewhere.")


def wait_for_ctrl_c(system: System) -> None:
    """Stay until Ctrl-C."""
    try:
        system.progress.say("Ctrl-C stops everything. What the containers say: ./countinghouse logs -f")
        signal.pause()
    except KeyboardInterrupt:
        system.progress.say("")


def _change(before: ProcessState | None, now: ProcessState) -> str | None:
    if before is None:
        return f"is {now.state.lower()}"
    if before.state != now.state:
        return f"was {before.state.lower()} and is {now.state.lower()}"
    if now.state == STATE_RUNNING and before.pid != now.pid:
        return f"was started anew, now process {now.pid}"
    return None
