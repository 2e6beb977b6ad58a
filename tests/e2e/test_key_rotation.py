"""The keys of card numbers are changed under load: no read fails, every number moves, the old key is forgotten."""

import json
import threading
import time

import pytest
from click.testing import CliRunner

from operations import cli, rotation
from operations.errors import OperationFailed
from tests.e2e.conftest import Platform, eventually
from tests.e2e.test_cards import make_card, new_number

CARDS = 40


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


def states(platform: Platform) -> dict[str, tuple[str, int]]:
    rows = rotation.card_key_rows(platform.system)
    return {key_id: (state, int(cards.split()[0])) for _, key_id, state, cards in rows}


@pytest.mark.timeout(600)  # three restarts of two instances each, under load
def test_card_keys_change_while_cards_are_used(platform: Platform, monkeypatch) -> None:
    system = platform.system
    made = [(make_card(platform.admin, number=number)["id"], number) for number in (new_number() for _ in range(CARDS))]
    [before] = [key_id for key_id, (state, _) in states(platform).items() if state == "current"]
    reader = Reader(platform, dict(made))
    reader.start()
    try:
        rotation.rotate_card_keys(system, reason="The yearly change.")
        eventually(lambda: states(platform)[before] == ("old", 0), within_seconds=60)
        reads_with_both = reader.reads
        rotation.drop_old_card_keys(system, reason="The yearly change.")
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
    assert f"cards  {after}    current" in shown.output
    with pytest.raises(OperationFailed, match="no old keys"):
        rotation.drop_old_card_keys(system, reason="Again.")
