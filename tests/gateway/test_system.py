"""Health, readiness, metrics, documents."""

import threading
import time
from typing import Any

import pytest

from gateway.api import system
from gateway.configuration import SERVICES
from shared import errors
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, services: FakeServices) -> None:
    monkeypatch.setattr(system, "_readiness", system.FreshCache(fresh_seconds=1, grace_seconds=0))
    for service in SERVICES:
        services.answer(service, "ping", {"instance": f"{service}-1", "database": True, "outbox_pending": 0})


def test_alive_needs_nothing_else(gateway: Gateway, services: FakeServices) -> None:
    services.is_up = False
    assert gateway.nobody.get("/healthz").get_json() == {"status": "ok"}


def test_ready_when_the_bus_and_every_service_answer(gateway: Gateway) -> None:
    response = gateway.nobody.get("/readyz")
    assert response.status_code == 200
    assert response.get_json()["is_ready"] is True
    assert set(response.get_json()["services"]) == set(SERVICES)
    assert response.get_json()["services"]["ledger"]["outbox_pending"] == 0


@pytest.mark.parametrize(
    "answer", [errors.DeadlineExceeded(), errors.Unavailable(), {"instance": "cards-1", "database": False}]
)
def test_not_ready_says_which(gateway: Gateway, services: FakeServices, answer: Any) -> None:
    services.answer("cards", "ping", answer)
    response = gateway.nobody.get("/readyz")
    assert response.status_code == 503
    states = response.get_json()["services"]
    assert [service for service in SERVICES if not states[service]["is_ready"]] == ["cards"]


def test_services_are_asked_at_once(gateway: Gateway, services: FakeServices) -> None:
    everyone = threading.Barrier(len(SERVICES), timeout=5)
    for service in SERVICES:
        services.answer(service, "ping", lambda: (everyone.wait() and None) or {"database": True})
    assert gateway.nobody.get("/readyz").status_code == 200


def test_probes_do_not_multiply(gateway: Gateway, services: FakeServices) -> None:
    for _ in range(10):
        gateway.nobody.get("/readyz")
    assert len(services.calls_of("ledger", "ping")) == 1
    time.sleep(1.05)
    gateway.nobody.get("/readyz")
    assert len(services.calls_of("ledger", "ping")) == 2


def test_metrics_count_requests_by_route(gateway: Gateway) -> None:
    gateway.nobody.get("/api/v1/lamps")
    text = gateway.nobody.get("/metrics").text
    assert 'gateway_requests_total{method="GET",route="/api/v1/lamps",status="401"}' in text
    assert 'gateway_breaker_open{service="ledger"} 0.0' in text


def test_metrics_do_not_grow_with_paths_that_do_not_exist(gateway: Gateway) -> None:
    for number in range(3):
        gateway.nobody.get(f"/no/such/{number}")
    assert "/no/such" not in gateway.nobody.get("/metrics").text


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere_and_run_nothing_inline(gateway: Gateway, path: str) -> None:
    page = gateway.nobody.get(path)
    assert page.mimetype == "text/html"
    for outside in ("http://", "https://", 'src="//', "<script>", "style=", "onclick"):
        assert outside not in page.text


def test_docs_find_their_files(gateway: Gateway) -> None:
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert gateway.nobody.get(f"/docs/assets/{name}").status_code == 200
    assert gateway.nobody.get("/docs/assets/..%2f__init__.py").status_code == 404
