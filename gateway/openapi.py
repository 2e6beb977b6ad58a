"""What the OpenAPI document says of every operation beyond its schemas: terms, headers, and how it may refuse."""

from typing import Any

import flask_smorest  # type: ignore[import-untyped]  # ships no types
from apispec import APISpec

from gateway.schemas.base import ProblemSchema
from gateway.terms import Terms

CONTENT_TYPE_PROBLEM = "application/problem+json"
VERSION = "1.0.0"
DESCRIPTION = (
    "The back office of a payment platform. Money is a decimal string with its currency beside it; time is RFC 3339"
    " in UTC. Errors are RFC 9457 problems. `x-permission` names the permission that an operation asks for."
)
_REFUSALS = {
    400: "The body is not JSON.",
    401: "Not, or no longer, signed in.",
    403: "Signed in, but not allowed.",
    404: "Unknown, or outside the caller's merchants.",
    409: "Against the present state, or the Idempotency-Key was used otherwise.",
    413: "The body is too large.",
    414: "The address is too long; what reads the request line answers this, as a page.",
    415: "The body is not of a type that this route takes.",
    422: "Well-formed but invalid.",
    429: "Too many requests; `Retry-After` says when to come back.",
    500: "Our mistake; the request id leads to it.",
    502: "A system that we depend on answered wrongly.",
    503: "A service or the bus does not answer; `Retry-After` says when to come back.",
    504: "No answer came in time; the outcome may be unknown.",
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_REQUEST_ID_HEADER = {"X-Request-ID": {"description": "The request's id.", "schema": {"type": "string"}}}
_REPLAYED_HEADER = {
    "Idempotent-Replayed": {
        "description": "`true` when this is the answer to an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}


class Api(flask_smorest.Api):  # type: ignore[misc]
    """The API: one document, and errors as `problems.py` answers them."""

    ERROR_SCHEMA = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        """Leave the errors to `problems.py`."""

    def _register_responses(self) -> None:
        """Leave the refusals to `describe`."""


def configuration() -> dict[str, Any]:
    """Return what flask-smorest is to know."""
    return {
        "API_TITLE": "Countinghouse",
        "API_VERSION": VERSION,
        "OPENAPI_VERSION": "3.1.0",
        "API_SPEC_OPTIONS": {"info": {"description": DESCRIPTION}, "servers": [{"url": "/"}]},
    }


def describe(spec: APISpec) -> None:
    """Add to the document what all operations refer to."""
    spec.components.security_scheme(
        "bearer",
        {"type": "http", "scheme": "bearer", "description": "An access token of `POST /auth/login`, or an API key."},
    )
    spec.components.schema("Problem", schema=ProblemSchema)
    for status, text in _REFUSALS.items():
        headers = _REQUEST_ID_HEADER | (_RETRY_AFTER if status in (429, 502, 503, 504) else {})
        content = {CONTENT_TYPE_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        if status == 414:
            headers, content = {}, {}
        if status in (403, 404, 414, 500):
            content["text/html"] = {"schema": {"type": "string"}}
        spec.components.response(f"Refusal{status}", {"description": text, "headers": headers, "content": content})


def operation_of(operation: dict[str, Any], terms: Terms, method: str) -> dict[str, Any]:
    """Return an operation's document with its terms: security, permission, headers, refusals."""
    operation["security"] = [] if terms.is_public else [{"bearer": []}]
    if terms.permission is not None:
        operation["x-permission"] = terms.permission
    operation["x-deadline-seconds"] = terms.deadline_seconds
    if terms.moves_money:
        operation["x-moves-money"] = True
    has_query = any(_location(parameter) == "query" for parameter in operation.get("parameters", []))
    operation.setdefault("parameters", []).extend(_header_parameters(terms, method))
    # flask-smorest refers to refusals by names of its own; ours say more.
    responses = {str(code): a for code, a in operation.get("responses", {}).items() if isinstance(a, dict)}
    operation["responses"] = responses
    for response in responses.values():
        headers = _REQUEST_ID_HEADER | (_REPLAYED_HEADER if _honours_key(terms, method) else {})
        response["headers"] = headers | response.get("headers", {})
    for status in _possible_refusals(terms, method, has_query=has_query):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/Refusal{status}"})
    return operation


def _header_parameters(terms: Terms, method: str) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {
            "in": "header",
            "name": "X-Request-ID",
            "description": "Taken over when sane, else made; follows the request through every service and log.",
            "schema": {"type": "string"},
        }
    ]
    if _honours_key(terms, method):
        parameters.append(
            {
                "in": "header",
                "name": "Idempotency-Key",
                "required": terms.moves_money,
                "description": "The same key and body get the first answer again; kept for at least 24 hours.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
            }
        )
    return parameters


def _honours_key(terms: Terms, method: str) -> bool:
    return method != "get" and not terms.is_public


def _possible_refusals(terms: Terms, method: str, *, has_query: bool) -> list[int]:
    statuses = [404, 429, 500, 502, 503, 504]
    if not terms.is_public:
        statuses += [401, 403]
    elif method != "get":
        statuses += [401]  # a public route that takes something checks a password or a signature
    if method != "get":
        statuses += [400, 409, 413, 415, 422]
    elif has_query:
        statuses += [414, 422]
    return sorted(statuses)


def _location(parameter: Any) -> str:
    return str(parameter.get("in", "")) if isinstance(parameter, dict) else ""


def operations_by_permission(spec: APISpec) -> dict[str, list[dict[str, str]]]:
    """Return the operations that each permission opens, as the document declares them."""
    opened: dict[str, list[dict[str, str]]] = {}
    for path, operations in spec.to_dict()["paths"].items():
        for method, operation in operations.items():
            if isinstance(operation, dict) and "x-permission" in operation:
                opened.setdefault(operation["x-permission"], []).append(
                    {
                        "operation_id": operation["operationId"],
                        "method": method.upper(),
                        "path": path,
                        "summary": operation.get("summary", ""),
                    }
                )
    return opened
