"""Request ids, client addresses and security headers."""

from ipaddress import ip_network

import pytest

from gateway.context import client_ip
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

PROXIES = (ip_network("10.0.0.0/8"),)


def test_sane_request_id_is_taken_over_and_reaches_the_service(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "show_my_lamp", {"id": "l1"})

    response = gateway.alice.get("/api/v1/lamps/mine", headers={"X-Request-ID": "order-4711.retry:2"})

    assert response.headers["X-Request-ID"] == "order-4711.retry:2"
    assert services.calls_of("users", "show_my_lamp")[0].passport.request_id == "order-4711.retry:2"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", "-leading", "ü"])
def test_insane_request_id_is_replaced(gateway: Gateway, given: str) -> None:
    answered = gateway.nobody.get("/healthz", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert answered.startswith("req_")


def test_each_request_has_an_id_of_its_own(gateway: Gateway) -> None:
    assert len({gateway.nobody.get("/healthz").headers["X-Request-ID"] for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["not an address"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
    ],
)
def test_forwarded_for_counts_only_from_trusted_proxies(peer: str, forwarded: list[str], address: str) -> None:
    assert client_ip(peer, forwarded, PROXIES) == address


def test_forwarded_for_is_ignored_without_proxies(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "show_my_lamp", {"id": "l1"})
    gateway.alice.get("/api/v1/lamps/mine", headers={"X-Forwarded-For": "198.51.100.1"})
    assert services.calls_of("users", "show_my_lamp")[0].passport.ip == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "/healthz", "/no/such/page", "/static/page.css", "/docs", "/api/v1/lamps"])
def test_every_answer_has_security_headers(gateway: Gateway, path: str) -> None:
    headers = gateway.nobody.get(path).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Strict-Transport-Security" not in headers


def test_answers_are_not_cached(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "show_my_lamp", {"id": "l1"})
    assert gateway.alice.get("/api/v1/lamps/mine").headers["Cache-Control"] == "no-store"
