"""A card's life: HTTP, bus, database, events, audit; and that its number lies nowhere but sealed."""

import json
import secrets
import subprocess
from pathlib import Path

from stdnum import luhn

from tests.e2e.conftest import Api, Platform, eventually


def new_number() -> str:
    body = "411111" + str(secrets.randbelow(10**9)).zfill(9)
    return body + str(luhn.calc_check_digit(body))


def make_card(api: Api, **fields: object) -> dict:
    body = {"holder_name": "Ada Lovelace", "currency": "CNY", **({} if "number" in fields else {"bin": "555555"})}
    answer = api.post("/cards", body | fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def files_with(text: str, folder: Path) -> list[str]:
    found = subprocess.run(["grep", "-ral", text, folder], capture_output=True, text=True)
    return found.stdout.split()


def test_a_card_lives_from_number_to_closed_and_each_act_is_logged(platform: Platform) -> None:
    merchant_id = platform.merchant()
    operator = platform.person(roles=["operator"], merchants=[merchant_id])
    card = make_card(operator, merchant_id=merchant_id, expiry="05/29")
    card_id = card["id"]
    assert (card["status"], card["expiry"], card["merchant_id"]) == ("inactive", "2029-05", merchant_id)
    for verb, body, status in [
        ("freeze", {"reason": "x"}, 409),
        ("activate", {}, 200),
        ("freeze", {"reason": "Reported lost."}, 200),
        ("unfreeze", {}, 200),
        ("close", {"reason": "Done."}, 200),
        ("activate", {}, 409),
    ]:
        assert operator.post(f"/cards/{card_id}/{verb}", body).status_code == status, verb
    wanted = {f"cards.{act}" for act in ("create_card", "activate_card", "freeze_card", "unfreeze_card", "close_card")}

    def acts() -> dict[str, dict]:
        rows = platform.admin.get("/logs", resource_id=card_id, limit=100).json()["items"]
        return {row["action"]: row for row in rows if row["log_type"] != "api_call"}

    eventually(lambda: wanted <= acts().keys())
    frozen = acts()["cards.freeze_card"]
    assert frozen["changes"] == {"status": {"before": "active", "after": "frozen"}}
    assert frozen["merchant_id"] == merchant_id


def test_a_cards_number_lies_nowhere_but_sealed(platform: Platform) -> None:
    number, key = new_number(), secrets.token_hex(16)
    card = make_card(platform.admin, number=number)
    assert platform.admin.post("/cards", {"number": number, "holder_name": "x", "currency": "CNY"}).status_code == 409
    assert platform.admin.get("/cards", q=number).json()["code"] == "number_in_address"
    [found] = platform.admin.post("/cards/search", {"number": number}).json()["items"]
    assert found["id"] == card["id"]
    reveal = {"reason": "The holder asked."}
    assert platform.admin.post(f"/cards/{card['id']}/reveal", reveal, key=key).json()["number"] == number
    again = platform.admin.post(f"/cards/{card['id']}/reveal", reveal, key=key)
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_answer_not_kept")

    def logged() -> list[dict]:
        rows = platform.admin.get("/logs", action="cards.reveal_card", resource_id=card["id"]).json()["items"]
        return [row for row in rows if row["log_type"] != "api_call"]

    [row] = eventually(logged)
    assert "The holder asked." in json.dumps(row)
    # Logs of all processes, the gateway's spool, the broker's files, every database and its write-ahead log.
    assert files_with(number, platform.system.home.path) == []
    assert files_with(card["id"], platform.system.home.path) != []


def test_another_merchants_operator_neither_sees_nor_takes_a_card(platform: Platform) -> None:
    ours, theirs = platform.merchant(), platform.merchant()
    operator = platform.person(roles=["operator"], merchants=[theirs])
    card_id = make_card(platform.admin, merchant_id=ours)["id"]
    unassigned = make_card(platform.admin)["id"]
    assert operator.get("/cards").json()["items"] == []
    for hidden in (card_id, unassigned, "car_unknown"):
        answers = [
            operator.get(f"/cards/{hidden}"),
            operator.get(f"/cards/{hidden}/assignments"),
            operator.patch(f"/cards/{hidden}", {"holder_name": "x"}),
            operator.post(f"/cards/{hidden}/activate"),
            operator.post(f"/cards/{hidden}/close", {"reason": "x"}),
            operator.put(f"/cards/{hidden}/merchant", {"merchant_id": theirs}),
            operator.post("/cards/assign", {"card_ids": [hidden], "merchant_id": theirs}),
        ]
        assert {(a.status_code, a.json()["code"]) for a in answers} == {(404, "card_not_found")}
    platform.admin.put(f"/cards/{card_id}/merchant", {"merchant_id": theirs})
    assert [card["id"] for card in operator.get("/cards").json()["items"]] == [card_id]
    held = [row["merchant_id"] for row in platform.admin.get(f"/cards/{card_id}/assignments").json()["items"]]
    assert held == [theirs, ours]
    assert [r["merchant_id"] for r in operator.get(f"/cards/{card_id}/assignments").json()["items"]] == [theirs]
