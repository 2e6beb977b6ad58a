"""Requests made of an OpenAPI document: one that fits for each operation, and each with a text put into each field."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Place = tuple[str | int, ...]
JSON, CSV = "application/json", "text/csv"
FORMATS = {"date-time": "2026-11-22T09:30:00Z", "date": "2026-11-22"}


@dataclass
class Request:
    """One request. `where` says which field holds what was put in."""

    operation_id: str
    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = JSON
    moves_money: bool = False
    where: str = ""


class Document:
    """An OpenAPI document, with known values for the fields whose names it knows."""

    def __init__(self, document: dict[str, Any], known: dict[str, Any]) -> None:
        self._document = document
        self._known = known

    def requests(self, methods: tuple[str, ...]) -> Iterator[Request]:
        """Yield a request that fits for each operation of these methods."""
        for path, operations in self._document["paths"].items():
            for method in methods:
                if method in operations:
                    yield self._request(path, method, operations[method])

    def _request(self, path: str, method: str, operation: dict[str, Any]) -> Request:
        request = Request(operation["operationId"], method.upper(), path)
        request.moves_money = operation.get("x-moves-money", False)
        content = operation.get("requestBody", {}).get("content", {})
        if content:
            request.content_type = next((kind for kind in (JSON, CSV) if kind in content), next(iter(content)))
            described = content[request.content_type]
            request.body = described.get("example") or self.example(described["schema"])
        return request

    def filled(self, request: Request, **path: str) -> Request:
        """Return the request with its path's parameters filled in, those given and those known."""
        made = copy.deepcopy(request)
        for name in self.path_parameters(request):
            made.path = made.path.replace(f"{{{name}}}", str(path.get(name, self._known.get(name, "x1"))))
        return made

    def path_parameters(self, request: Request) -> list[str]:
        """Return the names of the parameters in a request's path."""
        return [part.split("}")[0] for part in request.path.split("{")[1:]]

    def query_parameters(self, request: Request) -> list[str]:
        """Return the names of an operation's query parameters."""
        item = self._document["paths"][request.path]
        parameters = [*item.get("parameters", []), *item[request.method.lower()].get("parameters", [])]
        return [p["name"] for p in parameters if p.get("in") == "query"]

    def example(self, schema: dict[str, Any], name: str = "") -> Any:
        """Return a value that fits a schema, with every field that it may have."""
        schema = self._resolved(schema)
        if name in self._known:
            return self._known[name]
        for choice in ("anyOf", "oneOf", "allOf"):
            if choice in schema:
                return self.example(schema[choice][0], name)
        if "enum" in schema:
            return next(word for word in schema["enum"] if word is not None)
        kind = schema.get("type", "string")
        kind = next(k for k in kind if k != "null") if isinstance(kind, list) else kind
        if kind == "object":
            fields = schema.get("properties", {})
            made = {key: self.example(of, key) for key, of in fields.items() if not self._resolved(of).get("readOnly")}
            return made or {"a": "text"}
        if kind == "array":
            return [self.example(schema.get("items", {}), name)]
        if kind in ("integer", "number"):
            return schema.get("minimum", 1)
        if kind == "boolean":
            return False
        if "example" in schema:
            return schema["example"]
        return FORMATS.get(schema.get("format", "")) or "text".ljust(schema.get("minLength", 0), "x")

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return schema


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield where texts stand in JSON."""
    if isinstance(value, str):
        yield at
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*at, key))
    elif isinstance(value, list):
        for n, part in enumerate(value):
            yield from places(part, (*at, n))


def put(value: Any, at: Place, text: str) -> Any:
    """Return the JSON with another text at a place."""
    if not at:
        return text
    made = copy.copy(value)
    made[at[0]] = put(made[at[0]], at[1:], text)
    return made


def name_of(at: Place) -> str:
    """Return the name of the field at a place; items of a list have their list's."""
    return next((part for part in reversed(at) if isinstance(part, str)), "")
