"""The OpenAPI document is complete: each route, each refusal, each header, each permission."""

import re
from typing import Any

import pytest

from gateway.terms import terms_of
from tests.gateway.conftest import Gateway


@pytest.fixture
def document(gateway: Gateway) -> dict[str, Any]:
    """The document as it is served."""
    served: dict[str, Any] = gateway.nobody.get("/openapi.json").get_json()
    return served


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in ("get", "post", "put", "patch", "delete")
    }


def test_every_route_is_in_the_document(gateway: Gateway, document: dict[str, Any]) -> None:
    routes = {
        (method, re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule))
        for rule in gateway.app.url_map.iter_rules()
        if rule.endpoint != "static"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert set(operations(document)) == routes


def test_every_operation_says_what_it_asks_for(gateway: Gateway, document: dict[str, Any]) -> None:
    described = operations(document)
    for rule in gateway.app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        terms = terms_of(gateway.app.view_functions[rule.endpoint])
        path = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            operation = described[method, path]
            assert operation.get("x-permission") == terms.permission
            assert operation["security"] == ([] if terms.is_public else [{"bearer": []}])
            assert operation["summary"], f"{method} {path} has no docstring"


def test_every_operation_has_an_id_of_its_own(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(ids) == len(set(ids))


def test_refusals_are_problems(document: dict[str, Any]) -> None:
    assert set(document["components"]["schemas"]["Problem"]["required"]) == {
        "type",
        "title",
        "status",
        "detail",
        "code",
        "request_id",
    }
    for name, response in document["components"]["responses"].items():
        if name.startswith("Refusal") and name != "Refusal414":
            assert response["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert "X-Request-ID" in response["headers"]
    assert "Retry-After" in document["components"]["responses"]["Refusal503"]["headers"]
    for operation in operations(document).values():
        assert {"500", "503", "504"} <= set(operation["responses"])


def test_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            return {part["$ref"]} if "$ref" in part else set().union(*map(references, part.values()), set())
        return set().union(*map(references, part), set()) if isinstance(part, list) else set()

    for reference in references(document):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_money_is_a_string(document: dict[str, Any]) -> None:
    amount = document["components"]["schemas"]["NewLamp"]["properties"]["amount"]
    assert amount["type"] == "string"
    assert re.search(amount["pattern"], "-12.50")
    assert not re.search(amount["pattern"], "1e3")


def test_body_takes_no_further_fields(document: dict[str, Any]) -> None:
    assert document["components"]["schemas"]["NewLamp"]["additionalProperties"] is False


def test_list_describes_its_filters_and_both_its_forms(document: dict[str, Any]) -> None:
    operation = document["paths"]["/api/v1/lamps"]["get"]
    by_name = {parameter["name"]: parameter for parameter in operation["parameters"]}
    assert {"limit", "cursor", "name", "is_lit", "date", "X-Request-ID"} == set(by_name)
    assert by_name["limit"]["schema"] | {"minimum": 1, "maximum": 500, "default": 50} == by_name["limit"]["schema"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/csv"}
    page = document["components"]["schemas"]["LampPage"]
    assert page["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Lamp"}


def test_idempotency_key_is_described_where_it_counts(document: dict[str, Any]) -> None:
    def key_of(path: str, method: str) -> dict[str, Any] | None:
        parameters = document["paths"][path][method]["parameters"]
        return next((p for p in parameters if p["name"] == "Idempotency-Key"), None)

    assert (key_of("/api/v1/lamps", "post") or {})["required"] is True
    assert (key_of("/api/v1/lamps/{lamp_id}/light", "post") or {})["required"] is False
    assert key_of("/api/v1/lamps", "get") is None
    assert key_of("/api/v1/lamps/public", "post") is None


def test_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
