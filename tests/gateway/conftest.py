"""The gateway with a fake of the services behind it, and clients for three people and nobody."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.app import create_app
from gateway.configuration import Configuration
from gateway.records import Recorder
from gateway.spool import Spool
from shared.link import OutgoingMessage
from tests.gateway import lamps
from tests.gateway.people import FakeServices


class FakePublisher:
    """Keeps what is published, or fails as it is told."""

    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []
        self.failure: Exception | None = None

    def publish(self, messages: list[OutgoingMessage], *, timeout_seconds: float) -> None:
        """Stand in for shared.link.ConfirmedPublisher.publish."""
        if self.failure is not None:
            raise self.failure
        self.published += [orjson.loads(message.body) for message in messages]


class Gateway:
    """The app, and a client for each person."""

    def __init__(self, app: Flask, services: FakeServices) -> None:
        self.app = app
        self._services = services

    def client(self, authorization: str | None = None) -> FlaskClient:
        """Return a client that sends this Authorization header."""
        client = self.app.test_client()
        if authorization is not None:
            client.environ_base["HTTP_AUTHORIZATION"] = authorization
        return client

    def signed_in(self, name: str) -> FlaskClient:
        """Return a client signed in as alice (administrator), bob or charlie (operators) or dora (auditor)."""
        return self.client(f"Bearer {self._services.token(name)}")

    @functools.cached_property
    def nobody(self) -> FlaskClient:
        """A client that is not signed in."""
        return self.client()

    @functools.cached_property
    def alice(self) -> FlaskClient:
        """An administrator, for all merchants."""
        return self.signed_in("alice")

    @functools.cached_property
    def bob(self) -> FlaskClient:
        """An operator of the merchant Aurora."""
        return self.signed_in("bob")

    @functools.cached_property
    def charlie(self) -> FlaskClient:
        """An operator of the merchant Borealis."""
        return self.signed_in("charlie")

    @functools.cached_property
    def dora(self) -> FlaskClient:
        """An auditor, for all merchants."""
        return self.signed_in("dora")


@pytest.fixture
def services() -> FakeServices:
    """The services behind the gateway."""
    return FakeServices()


@pytest.fixture
def publisher() -> FakePublisher:
    """Where records of calls go."""
    return FakePublisher()


@pytest.fixture
def recorder(tmp_path: Path, publisher: FakePublisher) -> Iterator[Recorder]:
    """The recorder of calls; `carry_once` carries what waits, since no thread runs."""
    recorder = Recorder(Spool(str(tmp_path / "spool")), publisher)
    yield recorder
    recorder.stop()


@pytest.fixture
def records(recorder: Recorder, publisher: FakePublisher) -> Callable[[], list[dict[str, Any]]]:
    """Carry what waits and return everything that was recorded."""

    def carried() -> list[dict[str, Any]]:
        recorder.carry_once()
        return publisher.published

    return carried


@pytest.fixture
def configuration() -> Configuration:
    """What the gateway is told; a module may override it."""
    return Configuration(amqp_url="", passport_keys={})


@pytest.fixture
def gateway(configuration: Configuration, services: FakeServices, recorder: Recorder) -> Gateway:
    """The gateway, with the routes of `lamps.py` beside its own."""
    app = create_app(configuration, client=services, recorder=recorder, further=[lamps.blueprint])
    return Gateway(app, services)
