"""Argon2 keeps nobody waiting who does not sign in."""

import subprocess
import sys
import threading
import time

import pytest

from services.users import hashing
from shared.contracts.users import SignInBusy


def test_only_the_password_of_the_hash_fits() -> None:
    password_hash = hashing.hash_password("violet kettle harbour")
    assert password_hash.startswith("$argon2id$")
    assert hashing.fits("violet kettle harbour", password_hash)
    assert not hashing.fits("violet kettle harbor", password_hash)
    assert not hashing.fits("the password of nobody", None)
    assert not hashing.is_outdated(password_hash)


def test_two_hash_at_once_and_a_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, busy = 0, 0, 0
    lock = threading.Lock()
    release = threading.Event()

    def work() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        release.wait(2)
        with lock:
            at_once -= 1

    def knock() -> None:
        nonlocal busy
        try:
            hashing._in_turn(work)
        except SignInBusy:
            with lock:
                busy += 1

    places = hashing.AT_ONCE_MAX + hashing.WAITING_MAX
    threads = [threading.Thread(target=knock) for _ in range(places + 5)]
    for thread in threads:
        thread.start()
    give_up_at = time.monotonic() + 2
    while busy < 5 and time.monotonic() < give_up_at:
        time.sleep(0.01)
    release.set()
    for thread in threads:
        thread.join()
    assert (most, busy) == (hashing.AT_ONCE_MAX, 5)


LOOP = """
import os
os.environ["PSYCOPG_WAIT_FUNC"] = "wait_select"
import eventlet
eventlet.monkey_patch()
from services.users import hashing

ticks = 0
def tick():
    global ticks
    while True:
        eventlet.sleep(0.001)
        ticks += 1

eventlet.spawn(tick)
pool = [eventlet.spawn(hashing.hash_password, "violet kettle harbour") for _ in range(8)]
for green in pool:
    assert green.wait().startswith("$argon2id$")
print(ticks)
"""


def test_the_loop_of_a_service_goes_on_while_passwords_are_hashed() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOOP], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) >= 8  # at least one tick for each hash; none at all where the loop stands
