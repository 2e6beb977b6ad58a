"""No route, for no role, shows or changes anything of a merchant that is not the caller's: read off the document.

A route with a path parameter that `Foreign` cannot fill fails here, so whoever adds one says whose it is.
"""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import requests

from tests.e2e.conftest import Api, Platform, eventually

ROLES: Final = ("administrator", "operator", "auditor")
CANARY: Final = secrets.token_hex(4)  # stands in every name of the foreign merchant
CHANNEL: Final = "every-merchant"  # a payment platform of all merchants
# A parameter that names something of the platform, which has no merchant.
PLATFORM_WIDE: Final = {
    "/roles/{name}",
    "/tasks/{name}",
    "/settings/parameters/{key}",
    "/task-runs/{run_id}",
    "/docs/assets/{name}",
    "/archives/{archive_id}",
    "/channels/{code}",
    "/reconciliations/{reconciliation_id}",
    "/cards/bins/{bin}",
    "/statements/{statement_id}",
}
# What says how the platform, or the caller, is, and changes with each request or with time.
CHANGES_BY_ITSELF: Final = re.compile(r"/(logs|tasks|task-runs|me|openapi\.json|docs|settings|users/least-privilege)\b")
NOT_FOUND: Final = (403, 404)


@dataclass
class Foreign:
    """What the foreign merchant has, by path parameter."""

    platform: Platform
    merchant_id: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    def make(self) -> None:
        """Make one of everything, all of it with the canary in its name, for amounts that nobody else has."""
        admin, p = self.platform.admin, self.platform
        created = admin.post("/merchants", {"code": f"X{CANARY}".upper(), "name": f"Foreign {CANARY}"})
        self.merchant_id = self.ids["merchant_id"] = ok(created)["id"]
        user, order_no = f"u-{CANARY}", f"O-{CANARY}"
        ok(p.recharge(self.merchant_id, user, "98765.43"))
        order = {"merchant_id": self.merchant_id, "user_id": user, "kind": "purchase", "currency": "CNY"}
        ok(admin.post("/orders", order | {"order_no": order_no, "amount": "4321.09"}))
        self.ids["order_no"] = order_no
        self.ids["/accounts/{user_id}"] = user
        self._make_card()
        self._make_staff()
        self._make_binding()
        self._make_mismatch(user)
        self.ids["log_id"] = eventually(self._log_id)

    def _make_card(self) -> None:
        admin = self.platform.admin
        card = ok(admin.post("/cards", {"bin": "400000", "holder_name": f"Holder {CANARY}", "currency": "CNY"}))
        self.ids["card_id"] = card["id"]
        ok(admin.put(f"/cards/{card['id']}/merchant", {"merchant_id": self.merchant_id}))
        ok(admin.post(f"/cards/{card['id']}/activate"))
        device = {"name": f"Device {CANARY}", "platform": "android", "fingerprint": f"fp-{CANARY}"}
        self.ids["device_id"] = ok(admin.post(f"/cards/{card['id']}/devices", device))["device_id"]

    def _make_staff(self) -> None:
        admin = self.platform.admin
        staff, user_id = self.platform.person_and_id(roles=["operator"], merchants=[self.merchant_id])
        self.ids["user_id"] = user_id
        self.ids["session_id"] = ok(staff.get("/me/sessions"))["items"][0]["id"]
        key = {"name": f"Key {CANARY}", "roles": ["operator"], "merchants": [self.merchant_id]}
        self.ids["key_id"] = ok(admin.post("/api-keys", key))["id"]

    def _make_binding(self) -> None:
        admin = self.platform.admin
        body = {"merchant_id": self.merchant_id, "chat_id": -int(CANARY, 16), "title": f"Group {CANARY}"}
        binding = ok(admin.post("/telegram/bindings", body))["id"]
        self.ids["binding_id"] = binding
        self.ids["notification_id"] = ok(admin.post(f"/telegram/bindings/{binding}/test"))["id"]

    def _make_mismatch(self, user_id: str) -> None:
        """Settle an order that its payment platform says nothing of, and propose to take it back."""
        admin = self.platform.admin
        order = {"merchant_id": self.merchant_id, "user_id": user_id, "kind": "recharge", "currency": "CNY"}
        order_no = ok(admin.post("/orders", order | {"amount": "8765.43", "channel": CHANNEL}))["order_no"]
        ok(admin.post(f"/orders/{order_no}/settle"))
        with self._grace("0s"):
            self._reconcile()
        [mismatch] = ok(admin.get("/mismatches", channel=CHANNEL))["items"]
        self.ids["mismatch_id"] = mismatch["id"]
        ok(admin.post(f"/mismatches/{mismatch['id']}/correct", {"to": "upstream", "reason": f"why {CANARY}"}))
        [correction] = ok(admin.get("/corrections", mismatch_id=mismatch["id"]))["items"]
        self.ids["correction_id"] = correction["id"]

    @contextmanager
    def _grace(self, value: str) -> Iterator[None]:
        admin, key = self.platform.admin, "ledger.reconciliation_grace"
        before = ok(admin.get(f"/settings/parameters/{key}"))
        change = {"reason": "a test", "expected_version": before["version"]}
        after = ok(admin.put(f"/settings/parameters/{key}", change | {"value": value}))
        yield
        change["expected_version"] = after["version"]
        ok(admin.put(f"/settings/parameters/{key}", change | {"value": before["value"]}))

    def _reconcile(self) -> None:
        """Reconcile today, until the ledger has heard that there is no grace."""
        body = {"channel": CHANNEL, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        eventually(lambda: ok(self.platform.admin.post("/reconciliations", body))["found"] == 1)

    def _log_id(self) -> str | None:
        rows = ok(self.platform.admin.get("/logs", merchant_id=self.merchant_id))["items"]
        return rows[0]["id"] if rows else None

    def path_of(self, template: str) -> str:
        """Return a path with the foreign merchant's ids in it."""

        def fill(match: re.Match[str]) -> str:
            parameter = match.group(1)
            value = self.ids.get(template[: match.end()]) or self.ids.get(parameter)
            if value is None and is_platform_wide(template):
                return "absent"
            assert value is not None, f"tell `Foreign` what the {parameter} of {template} is, or PLATFORM_WIDE"
            return value

        return re.sub(r"\{(\w+)\}", fill, template)

    def body_of(self, schema: dict[str, Any], name: str = "") -> Any:
        """Return a body that is valid, and names the foreign merchant wherever it names one."""
        known: dict[str, Any] = {
            "merchant_id": self.merchant_id,
            "user_id": self.ids["/accounts/{user_id}"],
            "card_ids": [self.ids["card_id"]],
            "card_id": self.ids["card_id"],
            "device_id": self.ids["device_id"],
            "merchants": [self.merchant_id],
            "roles": ["auditor"],
            "amount": "1.00",
            "currency": "CNY",
            "type": 321,
            "order_no": f"N-{secrets.token_hex(4)}",
            "chat_id": -secrets.randbelow(10**9),
            "ids": [self.ids["mismatch_id"]],
            "reason": "generated",
            "bin": "499999",
        }
        if name in known:
            return known[name]
        if "enum" in schema:
            return schema["enum"][0]
        if "properties" in schema:
            required = schema.get("required", ())
            return {
                key: self.body_of(value, key)
                for key, value in schema["properties"].items()
                if key in required or key in known
            }
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "array":
            return [self.body_of(schema["items"], name)]
        return {"boolean": True, "integer": schema.get("minimum", 1), "object": {}}.get(str(kind), "generated")


def is_platform_wide(template: str) -> bool:
    """Return whether what a path names has no merchant."""
    return any(template.startswith(prefix) for prefix in PLATFORM_WIDE)


def ok(answer: requests.Response) -> Any:
    """Return what an answer says; it must be a good one."""
    assert answer.ok, f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


@dataclass(frozen=True)
class Route:
    """A route of the document."""

    method: str
    template: str
    filters: frozenset[str]
    body: dict[str, Any] | None

    @property
    def is_platforms(self) -> bool:
        return is_platform_wide(self.template)

    @property
    def has_parameter(self) -> bool:
        return "{" in self.template


def routes_of(document: dict[str, Any]) -> list[Route]:
    """Return the routes below the API's base path, with the schemas of their JSON bodies resolved."""
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in ("get", "post", "put", "patch", "delete") and path.startswith("/api/v1"):
                content = operation.get("requestBody", {}).get("content", {})
                schema = content.get("application/json", {}).get("schema")
                body = None if schema is None else resolved(document, schema)
                filters = frozenset(p["name"] for p in operation.get("parameters", ()) if p.get("in") == "query")
                found.append(Route(method.upper(), path.removeprefix("/api/v1"), filters, body))
    return found


def resolved(document: dict[str, Any], schema: Any) -> Any:
    """Return a schema with what it refers to in its place."""
    if isinstance(schema, list):
        return [resolved(document, item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return resolved(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    return {key: resolved(document, value) for key, value in schema.items()}


def is_secretive(route: Route) -> bool:
    """Return whether a route is one of signing in, which knows no merchants."""
    return route.template.startswith("/auth/") or route.template.startswith("/.well-known")


@dataclass
class World:
    """The foreign merchant, and people of another one with what they saw before the foreign one was there."""

    foreign: Foreign
    routes: list[Route]
    people: dict[str, Api]
    seen_before: dict[tuple[str, str, str], bytes]


def questions(routes: list[Route], *, filtered: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return what can be asked of lists and totals; of those that have this filter, if one is named."""
    wanted = {
        "/archived-entries": {"month": "2026-01"},
        "/permissions/holders": {"operation": "orders.list_orders"},
        "/tasks/preview": {"schedule": "0 3 * * *"},
    }
    for route in routes:
        is_wanted = filtered is None or filtered in route.filters
        if route.method == "GET" and not route.has_parameter and is_wanted:
            yield route.template, wanted.get(route.template, {})


def ask(api: Api, path: str, query: dict[str, Any], accept: str) -> requests.Response:
    """Ask as JSON or as CSV."""
    api.http.headers["Accept"] = accept
    return api.get(path, **query)


@pytest.fixture(scope="module")
def world(running_system: Any) -> World:
    """A merchant with people of each role; what they see; and then another merchant with one of everything."""
    running_system.wait_ready()
    platform = Platform(running_system)
    document = requests.get(f"{running_system.url}/openapi.json", timeout=10).json()
    routes = [route for route in routes_of(document) if not is_secretive(route)]
    ok(platform.admin.post("/channels", {"code": CHANNEL, "name": "A payment platform", "kind": "statement"}))
    own = platform.merchant()
    ok(platform.recharge(own, "u-own", "5.00"))
    people = {role: platform.person(roles=[role], merchants=[own]) for role in ROLES}
    before = {}
    for role, api in people.items():
        for path, query in questions(routes):
            for accept in ("application/json", "text/csv"):
                before[role, path, accept] = ask(api, path, query, accept).content
    foreign = Foreign(platform)
    foreign.make()
    return World(foreign, routes, people, before)


@pytest.mark.e2e
@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
@pytest.mark.parametrize("role", ROLES)
def test_lists_totals_and_exports_say_what_they_said_before_the_foreign_merchant_was_there(
    world: World, role: str, accept: str
) -> None:
    api = world.people[role]
    differing, telling = [], []
    for path, query in questions(world.routes):
        answer = ask(api, path, query, accept)
        assert answer.status_code < 500, f"{path}: {answer.text}"
        if CANARY in answer.text or "98765.43" in answer.text or "4321.09" in answer.text:
            telling.append(path)
        before = world.seen_before[role, path, accept]
        if answer.ok and not CHANGES_BY_ITSELF.match(path) and answer.content != before:
            differing.append((path, before[:300], answer.content[:300]))
    assert telling == []
    assert differing == []


@pytest.mark.e2e
@pytest.mark.parametrize("role", ROLES)
def test_what_is_the_foreign_merchants_does_not_exist(world: World, role: str) -> None:
    api = world.people[role]
    api.http.headers["Accept"] = "application/json"
    wrong = []
    for route in world.routes:
        if route.method == "GET" and route.has_parameter and not route.is_platforms:
            answer = api.get(world.foreign.path_of(route.template))
            absent = api.get(re.sub(r"\{\w+\}", "absent", route.template))
            is_silent = answer.status_code in NOT_FOUND and CANARY not in _without_echo(answer)
            if not is_silent or _kind(answer) != _kind(absent):
                wrong.append((route.template, answer.status_code, _kind(answer), _kind(absent), answer.text[:200]))
    assert wrong == []


@pytest.mark.e2e
@pytest.mark.parametrize("filtered", ["merchant_id", "user_id", "order_no", "card_id", "device_id"])
def test_filter_by_what_is_foreign_finds_nothing(world: World, filtered: str) -> None:
    api, foreign = world.people["auditor"], world.foreign
    api.http.headers["Accept"] = "application/json"
    value = foreign.ids["/accounts/{user_id}"] if filtered == "user_id" else foreign.ids[filtered]
    wrong = []
    for path, query in questions(world.routes, filtered=filtered):
        answer = api.get(path, **query | {filtered: value})
        if answer.ok and (answer.json().get("items") or CANARY in answer.text):
            wrong.append((path, answer.text[:300]))
    assert wrong == []


@pytest.mark.e2e
@pytest.mark.parametrize("role", ROLES)
def test_what_is_the_foreign_merchants_cannot_be_changed(world: World, role: str) -> None:
    api, foreign = world.people[role], world.foreign
    api.http.headers["Accept"] = "application/json"
    before = _as_administrator(world)
    wrong = []
    for route in world.routes:
        body = None if route.body is None else foreign.body_of(route.body)
        is_about_foreign = (route.has_parameter and not route.is_platforms) or foreign.merchant_id in json.dumps(body)
        if route.method == "GET" or not is_about_foreign or route.template.startswith("/me/"):
            continue
        path = foreign.path_of(route.template)
        headers = {"Idempotency-Key": secrets.token_hex(8)}
        url = f"{api.url}/api/v1{path}"
        answer = api.http.request(route.method, url, json=body, headers=headers, timeout=30)
        if not is_refused(answer):
            wrong.append((route.method, route.template, answer.status_code, answer.text[:300], body))
    assert wrong == []
    assert _as_administrator(world) == before


def is_refused(answer: requests.Response) -> bool:
    """Return whether an answer says that there is no such thing, of many things of each."""
    items = answer.json().get("items") if answer.status_code == 200 else None
    if items:
        return all(item.get("error", {}).get("code", "").endswith("_not_found") for item in items)
    return answer.status_code in NOT_FOUND


def _as_administrator(world: World) -> dict[str, Any]:
    """Return all that there is of the foreign merchant."""
    admin, found = world.foreign.platform.admin, {}
    for route in world.routes:
        if route.method == "GET" and route.has_parameter and not route.is_platforms:
            answer = admin.get(world.foreign.path_of(route.template))
            if answer.ok and "notifications" not in route.template:  # which are sent meanwhile
                found[route.template] = answer.content
    assert len(found) > len(world.routes) // 10
    return found


def _kind(answer: requests.Response) -> tuple[int, str | None]:
    is_problem = answer.headers["Content-Type"].startswith("application/problem+json")
    return answer.status_code, answer.json()["code"] if is_problem else None


def _without_echo(answer: requests.Response) -> str:
    """Return an answer's text but for the address that was asked for."""
    return answer.text.replace(requests.utils.unquote(answer.request.path_url), "")
