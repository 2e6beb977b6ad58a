"""The route of a card's timeline."""

from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

ROW = {
    "card_id": "car_1",
    "time": "2026-11-24T09:00:00Z",
    "kind": "merchant",
    "event": "CardAssigned",
    "merchant_id": "mer_1",
    "actor_id": "usr_1",
    "actor_name": "Alice",
    "actor_type": "user",
    "request_id": "req_1",
    "reason": None,
    "changes": {"merchant_id": {"before": None, "after": "mer_1"}},
    "details": {},
}


def test_timeline_is_listed_by_kind_and_time_and_as_csv(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "list_card_timeline", {"items": [ROW], "next_cursor": None})
    path = "/api/v1/cards/car_1/timeline?kind=merchant&from=2026-11-24T00:00:00Z&limit=5"

    assert gateway.alice.get(path).get_json()["items"] == [ROW]
    [call] = [call for call in services.calls if call.service == "cards"]
    assert call.arguments == {
        "card_id": "car_1",
        "kind": "merchant",
        "from_time": "2026-11-24T00:00:00Z",
        "to_time": None,
        "limit": 5,
        "cursor": None,
    }
    assert "CardAssigned" in gateway.alice.get(path, headers={"Accept": "text/csv"}).text
    assert gateway.alice.get("/api/v1/cards/car_1/timeline?kind=nonsense").status_code == 422
