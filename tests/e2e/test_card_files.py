"""BIN ranges, cards by file and timelines through the whole system: HTTP, bus, database, events, audit."""

import json
import secrets
import time

import requests

from tests.e2e.conftest import ANSWER_SECONDS_MAX, Api, Platform, eventually
from tests.e2e.test_cards import files_with, make_card, new_number

HEADER = "number,bin,holder_name,currency,expiry,merchant_id,card_id"


def send_file(api: Api, text: str, *, key: str = "", **query: object) -> requests.Response:
    headers = {"Content-Type": "text/csv", "Idempotency-Key": key or secrets.token_hex(8)}
    url = f"{api.url}/api/v1/cards/import"
    return api.http.post(url, data=text.encode(), headers=headers, params=query, timeout=2 * ANSWER_SECONDS_MAX)


def fresh_bin() -> str:
    return f"62{secrets.randbelow(10**6):06}"


def test_a_file_makes_cards_under_a_bin_and_says_what_became_of_each_row(platform: Platform) -> None:
    ours, theirs, bin_ = platform.merchant(), platform.merchant(), fresh_bin()
    registered = platform.admin.post("/cards/bins", {"bin": bin_, "length": 19, "merchant_id": ours})
    assert registered.status_code == 201, registered.text
    number, existing = new_number(), make_card(platform.admin)["id"]
    rows = [
        f",{bin_},Ada,CNY,,{ours},",
        f",{bin_},Ada,CNY,,{theirs},",
        f"{number},,Grace,CNY,2030-01,{theirs},",
        f",,,,,{ours},{existing}",
        f"{number},,Grace,CNY,,,",
        ",,,,,mer_unknown,car_unknown",
    ]
    text, key = "\n".join([HEADER, *rows]), secrets.token_hex(8)
    dry = send_file(platform.admin, text, dry_run="true").json()
    report = send_file(platform.admin, text, key=key)
    again = send_file(platform.admin, text, key=key)

    codes = [item["error"] and item["error"]["code"] for item in report.json()["items"]]
    assert codes == [None, "bin_reserved", None, None, "card_number_taken", "merchant_not_found"]
    assert [item["error"] and item["error"]["code"] for item in dry["items"]] == codes
    assert (again.content, again.headers["Idempotent-Replayed"]) == (report.content, "true")
    made = report.json()["items"][0]
    card = platform.admin.get(f"/cards/{made['card_id']}").json()
    assert (card["merchant_id"], len(card["number_masked"])) == (ours, 19)
    assert platform.admin.patch(f"/cards/bins/{bin_}", {"status": "disabled"}).status_code == 200
    body = {"bin": bin_, "holder_name": "x", "currency": "CNY", "merchant_id": ours}
    assert platform.admin.post("/cards", body).json()["code"] == "bin_disabled"
    logged = eventually(
        lambda: platform.admin.get("/logs", resource_id=bin_, action="cards.update_bin").json()["items"]
    )
    assert "disabled" in json.dumps(logged)
    assert files_with(number, platform.system.home.path) == []


def test_a_file_is_cut_to_the_merchants_of_who_sends_it(platform: Platform) -> None:
    ours, theirs = platform.merchant(), platform.merchant()
    operator = platform.person(roles=["operator"], merchants=[ours])
    foreign = make_card(platform.admin, merchant_id=theirs)["id"]
    bin_ = fresh_bin()
    rows = [f",{bin_},Ada,CNY,,{ours},", f",{bin_},Ada,CNY,,{theirs},", f",,,,,{ours},{foreign}"]
    report = send_file(operator, "\n".join([HEADER, *rows])).json()
    codes = [item["error"] and item["error"]["code"] for item in report["items"]]
    assert codes == [None, "merchant_not_found", "card_not_found"]
    assert platform.admin.get(f"/cards/{foreign}").json()["merchant_id"] == theirs


def test_a_thousand_cards_come_by_one_file_well_within_its_time(platform: Platform) -> None:
    merchant_id, bin_ = platform.merchant(), fresh_bin()
    text = "\n".join([HEADER, *[f",{bin_},Holder {n},CNY,,{merchant_id}," for n in range(1000)]])
    began = time.monotonic()
    answer = send_file(platform.admin, text)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["created"], answer.json()["refused"]) == (1000, 0)
    assert time.monotonic() - began < 45
    assert send_file(platform.admin, f"{text}\n,{bin_},x,CNY,,,").status_code == 422


def test_a_cards_timeline_holds_what_was_done_to_it(platform: Platform) -> None:
    ours, theirs = platform.merchant(), platform.merchant()
    first, second = (platform.person(roles=["operator"], merchants=[m]) for m in (ours, theirs))
    card_id = make_card(first, merchant_id=ours)["id"]
    first.post(f"/cards/{card_id}/activate")
    first.post(f"/cards/{card_id}/freeze", {"reason": "Reported lost."})
    first.patch(f"/cards/{card_id}", {"limits": {"daily_amount": "50.00"}})
    platform.admin.post(f"/cards/{card_id}/reveal", {"reason": "The holder asked."})
    platform.admin.put(f"/cards/{card_id}/merchant", {"merchant_id": theirs})

    whole = platform.admin.get(f"/cards/{card_id}/timeline").json()["items"]
    assert [row["kind"] for row in whole] == ["merchant", "reveal", "limits", "status", "status", "merchant", "status"]
    assert whole[3]["reason"] == "Reported lost."
    seen = second.get(f"/cards/{card_id}/timeline").json()["items"]
    assert [row["changes"]["merchant_id"] for row in seen] == [{"before": None, "after": theirs}]
    assert first.get(f"/cards/{card_id}/timeline").status_code == 404
