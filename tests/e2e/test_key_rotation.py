"""Keys are changed while what is under them is used: nothing fails, everything moves, the old key is forgotten."""

import json
import re
import threading
import time
from collections import Counter

import pytest
from click.testing import CliRunner

from operations import cli, rotation
from operations.errors import OperationFailed
from operations.processes import payment_simulator_url
from operations.rotation import CHANNELS
from simulators.payment_platform.server import PlatformClient
from tests.e2e.conftest import Platform, eventually
from tests.e2e.test_callbacks import create, register
from tests.e2e.test_cards import make_card, new_number

CARDS = 40
TELLING = "ledger.tell_channel_keys_changed"


class Reader(threading.Thread):
    """Somebody who reveals and searches cards all the time, and remembers what did not work."""

    def __init__(self, platform: Platform, numbers: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.api, self.numbers = platform.person(roles=["administrator"], merchants="all"), numbers
        self.failures: list[str] = []
        self.reads = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.is_set():
            for card_id, number in self.numbers.items():
                shown = self.api.post(f"/cards/{card_id}/reveal", {"reason": "Rotation is tested."})
                found = self.api.post("/cards/search", {"number": number})
                if shown.status_code != 200 or shown.json()["number"] != number:
                    self.failures.append(f"{time.time()} reveal: {shown.status_code} {shown.text[:200]}")
                if found.status_code != 200 or [c["id"] for c in found.json()["items"]] != [card_id]:
                    self.failures.append(f"{time.time()} search: {found.status_code} {found.text[:200]}")
                self.reads += 1
                if self.is_over.is_set():
                    return


def states(platform: Platform, kind: rotation.Sealed = rotation.CARDS) -> dict[str, tuple[str, int]]:
    rows = rotation.key_rows(platform.system, kind)
    return {key_id: (state, int(cards.split()[0])) for _, key_id, state, cards in rows}


@pytest.mark.timeout(600)  # three restarts of two instances each, under load
def test_card_keys_change_while_cards_are_used(platform: Platform, monkeypatch) -> None:
    system = platform.system
    made = [(make_card(platform.admin, number=number)["id"], number) for number in (new_number() for _ in range(CARDS))]
    [before] = [key_id for key_id, (state, _) in states(platform).items() if state == "current"]
    reader = Reader(platform, dict(made))
    reader.start()
    try:
        rotation.change_keys(system, rotation.CARDS, reason="The yearly change.")
        eventually(lambda: states(platform)[before] == ("old", 0), within_seconds=60)
        reads_with_both = reader.reads
        rotation.drop_old_keys(system, rotation.CARDS, reason="The yearly change.")
        eventually(lambda: reader.reads > reads_with_both + CARDS, within_seconds=60)
    finally:
        reader.is_over.set()
        reader.join(30)
    assert reader.failures == []
    after = str(int(before) + 1)
    assert states(platform)[after][0] == "current"
    assert states(platform)[after][1] >= CARDS
    assert before not in states(platform)
    # A number is as taken as it was, and a new one is sealed under the new key.
    again = platform.admin.post("/cards", {"number": made[0][1], "holder_name": "x", "currency": "CNY"})
    assert (again.status_code, again.json()["code"]) == (409, "card_number_taken")
    logged = eventually(lambda: platform.admin.get("/logs", resource_type="key", resource_id=after).json()["items"])
    assert "The yearly change." in json.dumps(logged)
    assert [p for p in system.states() if p.startswith("cards-")] == ["cards-1"]

    monkeypatch.setenv("COUNTINGHOUSE_HOME", str(system.home.path))
    shown = CliRunner().invoke(cli.main, ["rotate-keys", "status"])
    assert re.search(rf"^cards +{after} +current", shown.output, re.MULTILINE)
    assert re.search(r"^channels +1 +current", shown.output, re.MULTILINE)
    with pytest.raises(OperationFailed, match="no old keys"):
        rotation.drop_old_keys(system, rotation.CARDS, reason="Again.")


@pytest.mark.timeout(600)
def test_channel_key_changes_while_callbacks_come(platform: Platform) -> None:
    system, simulator = platform.system, PlatformClient(payment_simulator_url(platform.system.home))
    code, merchant_id = register(platform, simulator), platform.merchant()
    [before] = [key_id for key_id, (state, _) in states(platform, CHANNELS).items() if state == "current"]
    is_over, outcomes = threading.Event(), Counter[str]()

    def pay_all_the_time() -> None:
        api = platform.person(roles=["administrator"], merchants="all")
        while not is_over.is_set():
            number = create(api, merchant_id=merchant_id, user_id="payer", channel=code)
            ref = simulator.make_payment(code, number, "10.00")["upstream_ref"]
            outcomes.update(simulator.deliver(code, upstream_refs=[ref])["outcomes"])

    payer = threading.Thread(target=pay_all_the_time, daemon=True)
    payer.start()
    try:
        rotation.change_keys(system, CHANNELS, reason="The yearly change.")
        eventually(lambda: states(platform, CHANNELS)[before] == ("old", 0), within_seconds=60)
        paid_with_both = outcomes.total()
        rotation.drop_old_keys(system, CHANNELS, reason="The yearly change.")
        eventually(lambda: outcomes.total() > paid_with_both + 3, within_seconds=60)
    finally:
        is_over.set()
        payer.join(60)
    assert not payer.is_alive()
    assert set(outcomes) == {"settled"}
    assert before not in states(platform, CHANNELS)
    after = str(int(before) + 1)
    logged = eventually(lambda: platform.admin.get("/logs", action=TELLING).json()["items"])
    assert {row["resource_id"] for row in logged} == {after}
    assert "The yearly change." in json.dumps(logged)
    with pytest.raises(OperationFailed, match="no old keys"):
        rotation.drop_old_keys(system, CHANNELS, reason="Again.")
