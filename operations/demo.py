"""Sample data for `up --demo`: what `simulators.demo` writes through the gateway's HTTP API."""

import requests

from operations.containers import Containers
from operations.errors import OperationFailed
from operations.processes import simulator_url
from operations.system import System
from simulators import demo
from simulators.gateway_client import GatewayClient, GatewayRefused, GatewayUnreachable, SignIn
from simulators.telegram.server import ControlClient


def fill(system: System) -> None:
    """Fill in what lacks of the sample data, signed in as the first administrator.

    Raises: OperationFailed, when that administrator's first password is no longer the one.
    """
    if not system.home.first_sign_in.exists():
        raise OperationFailed("Sample data needs the first administrator, whom this instance did not make.")
    client = GatewayClient(SignIn.read(system.home.first_sign_in))
    is_within_reach = not (system.home.given("TELEGRAM_API_URL") or Containers(system.home).are_chosen)
    telegram = ControlClient(simulator_url(system.home)) if is_within_reach else None
    with system.progress.step("Sample data") as step:
        try:
            demo.fill(client, telegram)
        except (GatewayRefused, GatewayUnreachable, requests.RequestException) as error:
            raise OperationFailed(f"The sample data could not be filled in. {error}") from error
        step.outcome = ", ".join(demo.MERCHANTS)
