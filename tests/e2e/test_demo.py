"""The demonstration's data, through the gateway: filled in once, and not again."""

from operations.processes import simulator_url
from simulators import demo
from simulators.gateway_client import GatewayClient, SignIn
from simulators.telegram.server import ControlClient
from tests.e2e.conftest import Platform, eventually


def test_demonstration_fills_each_page_once(platform: Platform) -> None:
    client = GatewayClient(SignIn.read(platform.system.home.first_sign_in))
    telegram = ControlClient(simulator_url(platform.system.home))
    demo.fill(client, telegram)
    merchants = {m["code"]: m["id"] for m in client.items("/merchants") if m["code"] in demo.MERCHANTS}
    assert merchants.keys() == demo.MERCHANTS.keys()
    of_aurora = {"merchant_id": merchants["AURORA"]}
    summary = client.get("/balance-logs/summary", **of_aurora)
    assert len({row["type"] for row in summary["items"]}) == 18
    cards = client.items("/cards", **of_aurora)
    assert {(card["status"], card["balance"]) for card in cards} == {
        ("inactive", "0"), ("active", "1450.60"), ("frozen", "1450.60")
    }  # fmt: skip
    eventually(lambda: len(list(client.items("/telegram/notifications", status="sent", **of_aurora))) == 2)
    [binding] = client.items("/telegram/bindings", **of_aurora)
    assert {m["chat"]["title"] for m in telegram.messages(int(binding["chat_id"]))} == {"Aurora Mobile · payments"}
    demo.fill(client, telegram)
    assert client.get("/balance-logs/summary", **of_aurora) == summary
    assert len(list(client.items("/cards", **of_aurora))) == len(demo.CARD_HOLDERS)
    assert len(list(client.items("/telegram/notifications", **of_aurora))) == 2
