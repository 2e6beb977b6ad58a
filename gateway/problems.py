"""Errors as RFC 9457 problems, or as pages to a browser. The only place that knows status codes of error families."""

import re
from typing import Any

import structlog
from flask import Flask, Response, render_template, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import BadRequest, HTTPException

from gateway import answers
from gateway.context import context
from shared.errors import (
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    RateLimited,
    ServiceError,
    Unauthenticated,
    Unavailable,
    UpstreamFailed,
)

log = structlog.get_logger(__name__)

STATUS_OF_FAMILY: dict[type[ServiceError], int] = {
    InvalidRequest: 422,
    Unauthenticated: 401,
    PermissionDenied: 403,
    NotFound: 404,
    Conflict: 409,
    PayloadTooLarge: 413,
    RateLimited: 429,
    Unavailable: 503,
    UpstreamFailed: 502,
    DeadlineExceeded: 504,
    InternalError: 500,
    ServiceError: 500,
}
RETRY_AFTER_SECONDS_DEFAULT = 2
STATUSES_WITH_PAGE = frozenset({403, 404, 500})
CONTENT_TYPE = "application/problem+json"
_CODE_OF_STATUS = {400: "malformed_request", 413: PayloadTooLarge.code}


def install(app: Flask) -> None:
    """Make every error of the app leave as a problem or a page."""
    app.register_error_handler(ServiceError, of_service_error)
    app.register_error_handler(HTTPException, of_http_exception)
    app.register_error_handler(ParseException, of_broken_body)
    app.register_error_handler(Exception, of_exception)


def of_service_error(error: ServiceError) -> Response:
    """Answer what a service, or the gateway itself, refused."""
    status = STATUS_OF_FAMILY[error.family]
    if status == 500:
        log.error("a service failed", code=error.code, detail=error.detail)
        return _internal_error(error)
    if error.extra.get("is_replayed"):
        context().is_replayed = True
    context().error_class = type(error).__name__
    response = answer(status, code=error.code, title=error.title, detail=error.detail, **_members(error))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RateLimited | Unavailable) or "retry_after_seconds" in error.extra:
        seconds = error.extra.get("retry_after_seconds", RETRY_AFTER_SECONDS_DEFAULT)
        response.headers["Retry-After"] = str(max(1, round(float(seconds))))
    return response


def of_http_exception(error: HTTPException) -> Response:
    """Answer what Flask itself refused: no such route, wrong method, too large …"""
    if error.response is not None or (error.code or 500) < 400:
        return Response.force_type(error.get_response(), request.environ)  # type: ignore[return-value]
    status = error.code or 500
    if status == 500:
        return of_exception(error)
    title = NotFound.title if status == 404 else f"{error.name}."
    detail = title if status == 404 else error.description or title
    code = _CODE_OF_STATUS.get(status) or _snake_case(error.name)
    response = answer(status, code=code, title=title, detail=detail)
    for name, value in error.get_headers(request.environ):
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def of_broken_body(error: ParseException) -> Response:
    """Answer a body that came in chunks which are none, or broke off between two: its sender's fault."""
    return of_http_exception(BadRequest("The body is broken, or breaks off."))


def of_exception(error: Exception) -> Response:
    """Answer our own mistake: nothing but the request id, by which the log tells the rest."""
    original = getattr(error, "original_exception", None) or error
    log.error("the request failed", exc_info=original, error_class=type(original).__name__)
    return _internal_error(original)


def answer(status: int, *, code: str, title: str, detail: str, **members: Any) -> Response:
    """Return a problem, or its page to a browser."""
    current = context()
    current.problem_code = code
    problem = {
        "type": f"urn:countinghouse:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": current.request_id,
        **members,
    }
    if status in STATUSES_WITH_PAGE and _wants_page():
        return Response(render_template("error.html", problem=problem), status, mimetype="text/html")
    return answers.json_response(problem, status, content_type=CONTENT_TYPE)


def _internal_error(error: Exception) -> Response:
    context().error_class = type(error).__name__
    detail = "It is not your fault. Tell us the request id, and we find what happened."
    return answer(500, code=InternalError.code, title="Something went wrong on our side.", detail=detail)


def _members(error: ServiceError) -> dict[str, Any]:
    # A replayed refusal brings the request id of the first answer along, so that the bytes are the same.
    reserved = {"type", "title", "status", "detail", "code", "errors", "is_replayed"}
    members = {name: value for name, value in error.extra.items() if name not in reserved}
    return members | ({"errors": error.errors} if error.errors else {})


def _wants_page() -> bool:
    accepted = request.accept_mimetypes
    return accepted.best_match([CONTENT_TYPE, "application/json", "text/html"]) == "text/html"


def _snake_case(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
