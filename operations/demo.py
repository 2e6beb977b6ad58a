"""Sample data for `up --demo`: what `simulators.demo` writes through the gateway's HTTP API."""

import json
from contextlib import ExitStack

import psycopg
import requests

from operations import keys
from operations.containers import Containers
from operations.errors import OperationFailed
from operations.home import write_private
from operations.processes import has_payment_simulator, payment_simulator_url, simulator_url
from operations.system import System
from operations.turned_clock import turned_clock
from simulators import demo
from simulators.gateway_client import GatewayClient, GatewayRefused, GatewayUnreachable, SignIn
from simulators.payment_platform.server import PlatformClient
from simulators.telegram.server import ControlClient

SIGN_INS = "demo-sign-ins.json"


def fill(system: System) -> None:
    """Fill in what lacks of the sample data, signed in as the first administrator.

    The sign-ins of the people whom it makes stand in the home's `demo-sign-ins.json`.
    Raises: OperationFailed, when that administrator's first password is no longer the one.
    """
    if not system.home.first_sign_in.exists():
        raise OperationFailed("Sample data needs the first administrator, whom this instance did not make.")
    client = GatewayClient(SignIn.read(system.home.first_sign_in))
    system.progress.say("Sample data")
    around = _surroundings(system)
    with ExitStack() as steps:

        def begin(name: str) -> None:
            steps.close()
            steps.enter_context(system.progress.step(f"  {name}"))

        around.tell = begin
        try:
            demo.fill(client, around)
        except (GatewayRefused, GatewayUnreachable, requests.RequestException, psycopg.Error) as error:
            raise OperationFailed(f"The sample data could not be filled in. {error}") from error


def _surroundings(system: System) -> demo.Surroundings:
    around = demo.Surroundings(keep=lambda sign_in: _keep(system, sign_in))
    if Containers(system.home).are_chosen:  # neither the simulators nor the databases are within reach
        return around
    around.clock = lambda: turned_clock(system)
    if not system.home.given("TELEGRAM_API_URL"):
        around.telegram = ControlClient(simulator_url(system.home))
    if has_payment_simulator(system.home):
        around.platform = PlatformClient(payment_simulator_url(system.home))
        around.platform_secret = keys.payment_secret(system.home)
    return around


def _keep(system: System, sign_in: SignIn) -> None:
    """Add a sign-in to the file of those that the demonstration made, which is for its owner only."""
    path = system.home.path / SIGN_INS
    known = json.loads(path.read_text()) if path.exists() else []
    made = {"url": sign_in.url, "username": sign_in.username, "password": sign_in.password}
    write_private(path, json.dumps([*known, made], indent=1) + "\n")
