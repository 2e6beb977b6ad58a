"""Puts the gateway together: blueprints, gate, problems, records, headers."""

import importlib
import pkgutil
from collections.abc import Iterable

from flask import Flask, Response, request

import gateway.api
from gateway import answers, authorization, openapi, problems, records, rpc
from gateway.authentication import Authenticator
from gateway.blueprint import Blueprint
from gateway.configuration import Configuration
from gateway.context import begin, context
from gateway.records import Recorder
from gateway.rpc import Bus, Client
from gateway.security_headers import SecurityHeaders
from shared.logs import request_id_var


def create_app(
    configuration: Configuration, *, client: Client, recorder: Recorder, further: Iterable[Blueprint] = ()
) -> Flask:
    """Return the gateway as a WSGI application; its client and recorder are the caller's to start and stop.

    further: blueprints beside those of `gateway/api`, as tests and benchmarks have them.
    """
    app = Flask(__name__)
    app.config.update(openapi.configuration())
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    bus = Bus(client)
    app.extensions[rpc.EXTENSION] = bus
    # What runs after a request runs in the reverse order of this: headers last of all, records before them.
    _install_context(app, configuration)
    records.install(app, recorder)
    authorization.install(app, Authenticator(bus.call_for_gateway))
    problems.install(app)
    _register_blueprints(app, [*_found_blueprints(), *further])
    app.wsgi_app = SecurityHeaders(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _install_context(app: Flask, configuration: Configuration) -> None:
    @app.before_request
    def begin_request() -> None:
        request_id_var.set(begin(request, configuration.trusted_proxies).request_id)

    @app.after_request
    def add_headers(response: Response) -> Response:
        current = context()
        response.headers["X-Request-ID"] = current.request_id
        if current.is_replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response


def _register_blueprints(app: Flask, blueprints: Iterable[Blueprint]) -> None:
    api = openapi.Api(app)
    openapi.describe(api.spec)
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    app.extensions["countinghouse-spec"] = api.spec
    app.extensions["countinghouse-document"] = answers.json_bytes(api.spec.to_dict())


def _found_blueprints() -> list[Blueprint]:
    """Return the `blueprint` of each module in `gateway/api`, so that nobody keeps a list."""
    names = sorted(module.name for module in pkgutil.iter_modules(gateway.api.__path__))
    return [importlib.import_module(f"gateway.api.{name}").blueprint for name in names]
