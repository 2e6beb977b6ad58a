"""Is it alive, is it ready, what can it do: the routes that belong to no service."""

import os
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

from flask import Response, current_app, render_template, send_from_directory

from gateway import answers, metrics
from gateway.blueprint import Blueprint
from gateway.configuration import SERVICES
from gateway.context import context
from gateway.fresh_cache import FreshCache
from gateway.rpc import Bus, bus
from gateway.schemas.system import HealthSchema, ReadinessSchema
from gateway.terms import public
from shared.errors import ServiceError

PING_SECONDS = 2.0
READINESS_FRESH_SECONDS = 1.0

blueprint = Blueprint("system", __name__, description="Health, metrics, documents.", url_prefix="")
_readiness = FreshCache[dict[str, Any]](fresh_seconds=READINESS_FRESH_SECONDS, grace_seconds=0)


@blueprint.get("/healthz")
@public
@blueprint.response(200, HealthSchema)
def check_health() -> dict[str, str]:
    """Tell that this process is alive."""
    return {"status": "ok"}


@blueprint.get("/readyz")
@public
@blueprint.response(200, ReadinessSchema)
@blueprint.alt_response(503, schema=ReadinessSchema)
def check_readiness() -> Response:
    """Tell whether the bus and each service with its database answer, and which does not."""
    reach = bus()
    readiness = _readiness.get(id(reach), lambda *_: _ping_all(reach), timeout_seconds=context().seconds_left())
    return answers.json_response(readiness, 200 if readiness["is_ready"] else 503)


@blueprint.get("/metrics")
@public
@blueprint.response(200, {"type": "string"}, content_type="text/plain")
def show_metrics() -> Response:
    """Show the metrics of this process in Prometheus' text format."""
    for service in SERVICES:
        metrics.breaker_open.labels(service).set(bus().is_cut_off(service))
    return Response(metrics.exposition(), content_type="text/plain; version=0.0.4; charset=utf-8")


@blueprint.get("/openapi.json")
@public
@blueprint.response(200, {"type": "object"})
def show_document() -> Response:
    """Show this document."""
    return Response(current_app.extensions["countinghouse-document"], content_type="application/json")


@blueprint.get("/docs")
@public
@blueprint.response(200, {"type": "string"}, content_type="text/html")
def show_docs() -> Response:
    """Show this document as a page to read and try."""
    return Response(render_template("docs.html"), mimetype="text/html")


@blueprint.get("/docs/assets/<name>")
@public
@blueprint.response(200, {"type": "string"}, content_type="text/css")
def show_docs_asset(name: str) -> Response:
    """Show a file of the page at /docs."""
    response = send_from_directory(_swagger_ui_directory(), name, max_age=3600)
    response.headers["Cache-Control"] = "public, max-age=3600"
    return response


@blueprint.get("/")
@public
@blueprint.response(200, {"type": "string"}, content_type="text/html")
def show_start() -> Response:
    """Show where to go from here."""
    return Response(render_template("start.html"), mimetype="text/html")


def _ping_all(reach: Bus) -> dict[str, Any]:
    with ThreadPoolExecutor(len(SERVICES)) as pool:
        states = dict(zip(SERVICES, pool.map(lambda service: _ping(reach, service), SERVICES), strict=True))
    is_ready = all(state["is_ready"] for state in states.values())
    return {"is_ready": is_ready, "bus": reach.is_up, "services": states}


def _ping(reach: Bus, service: str) -> dict[str, Any]:
    try:
        facts = reach.ping(service, timeout_seconds=PING_SECONDS)
    except ServiceError as error:
        return {"is_ready": False, "code": error.code}
    return {"is_ready": bool(facts["database"]), **facts}


def _swagger_ui_directory() -> str:
    spec = find_spec("flask_swagger_ui")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("flask_swagger_ui")
    return os.path.join(os.path.dirname(spec.origin), "dist")
