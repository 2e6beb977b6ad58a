"""What holds for every route of the gateway, read off its document: nobody has to remember to test it."""

import re
import tempfile
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.configuration import Configuration
from gateway.records import Recorder
from gateway.spool import Spool
from gateway.terms import Terms, terms_of
from shared.permissions import LEVELS, MODULES
from tests.gateway.conftest import FakePublisher, Gateway
from tests.gateway.people import FakeServices


def _make(services: FakeServices) -> Gateway:
    recorder = Recorder(Spool(tempfile.mkdtemp()), FakePublisher())
    app = create_app(Configuration(amqp_url="", passport_keys={}), client=services, recorder=recorder)
    return Gateway(app, services)


def _routes() -> list[tuple[str, str, Terms]]:
    """Return the method, an example path and the terms of every route that the gateway itself has."""
    app = _make(FakeServices()).app
    return [
        (method, re.sub(r"<[^>]+>", "x1", rule.rule), terms_of(app.view_functions[rule.endpoint]))
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static"
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]


ROUTES = _routes()
CLOSED = [route for route in ROUTES if not route[2].is_public]
WITH_PERMISSION = [route for route in ROUTES if route[2].permission is not None]
WITH_BODY = [route for route in CLOSED if route[2].takes_body]


def _named(routes: list[tuple[str, str, Terms]]) -> Any:
    return pytest.mark.parametrize(("method", "path", "terms"), routes, ids=[f"{m} {p}" for m, p, _ in routes])


@pytest.fixture(scope="module")
def all_services() -> FakeServices:
    """One fake for all these tests: making the app anew for each of hundreds would take most of a minute."""
    return FakeServices()


@pytest.fixture(scope="module")
def all_routes(all_services: FakeServices) -> Gateway:
    """One gateway for all these tests."""
    return _make(all_services)


@pytest.fixture
def services(all_services: FakeServices) -> FakeServices:
    """The fake, which has seen no call yet."""
    all_services.calls.clear()
    return all_services


@pytest.fixture
def gateway(all_routes: Gateway) -> Gateway:
    """The gateway with its own routes only."""
    return all_routes


def _somebody(gateway: Gateway, services: FakeServices, permissions: dict[str, str], **state: Any) -> FlaskClient:
    """Return a client of a session that nothing has been remembered of."""
    session_id = f"ses_{len(services.sessions)}"
    services.sessions[session_id] = services.sessions["ses_bob"] | {"permissions": permissions, **state}
    return gateway.client(f"Bearer {services.token('bob', sid=session_id)}")


def _problem(response: TestResponse) -> dict[str, Any]:
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = response.get_json(force=True)
    return problem


def _asked(services: FakeServices) -> list[str]:
    return [f"{c.service}.{c.method}" for c in services.calls if not c.method.startswith(("introspect", "get_signing"))]


@_named(CLOSED)
def test_closed_route_is_closed_to_nobody(
    gateway: Gateway, services: FakeServices, method: str, path: str, terms: Terms
) -> None:
    response = gateway.nobody.open(path, method=method)
    assert (response.status_code, _problem(response)["code"]) == (401, "unauthenticated")
    assert not _asked(services)


@_named(WITH_PERMISSION)
def test_level_below_is_refused_and_named(
    gateway: Gateway, services: FakeServices, method: str, path: str, terms: Terms
) -> None:
    module, _, level = str(terms.permission).partition(":")
    below = LEVELS[LEVELS.index(level) - 1]
    somebody = _somebody(gateway, services, dict.fromkeys(MODULES, "admin") | {module: below})
    response = somebody.open(path, method=method, headers={"Idempotency-Key": "k"})
    assert (response.status_code, _problem(response)["missing"]) == (403, terms.permission)
    assert not _asked(services)


@_named(CLOSED)
def test_expired_password_opens_only_its_change(
    gateway: Gateway, services: FakeServices, method: str, path: str, terms: Terms
) -> None:
    if terms.is_open_to_expired_password:
        assert path == "/api/v1/auth/password"
        return
    somebody = _somebody(gateway, services, dict.fromkeys(MODULES, "admin"), must_change_password=True)
    response = somebody.open(path, method=method)
    assert (response.status_code, _problem(response)["code"]) == (403, "password_change_required")


@_named(WITH_BODY)
def test_body_is_read_strictly(gateway: Gateway, services: FakeServices, method: str, path: str, terms: Terms) -> None:
    def send(data: bytes, content_type: str = "application/json") -> TestResponse:
        headers = {"Idempotency-Key": "k"}
        return gateway.alice.open(path, method=method, data=data, content_type=content_type, headers=headers)

    not_json = send(b"{'a': 1}")
    assert not_json.status_code in (400, 415)
    if not_json.status_code == 400:
        assert send(b"{}", "text/plain").status_code == 415
        unknown = send(b'{"no such field": 1}')
        assert unknown.status_code == 422
        assert "no such field" in _problem(unknown)["errors"]
        assert send(b"[]").status_code == 422
    assert not _asked(services)


@_named([route for route in ROUTES if route[2].moves_money])
def test_money_does_not_move_without_a_key(
    gateway: Gateway, services: FakeServices, method: str, path: str, terms: Terms
) -> None:
    response = gateway.alice.open(path, method=method, json={})
    assert (response.status_code, _problem(response)["code"]) == (422, "idempotency_key_required")
    assert not _asked(services)


def test_what_changes_something_asks_for_more_than_reading() -> None:
    """A POST that only looks something up may ask for reading: its question holds what no address should."""
    lax = [(m, p) for m, p, t in WITH_PERMISSION if m != "GET" and str(t.permission).endswith(":read")]
    assert all(method == "POST" for method, _ in lax)
