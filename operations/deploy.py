"""Deploy to given servers where something else supervises: `python -m operations.deploy`, the first container.

It makes databases, users, keys, topology and the administrator, and leaves each process's orders in its own folder
below ORDERS, so that a container is shown its own secrets and nobody else's.
"""

import json
import os
import sys
from pathlib import Path

from operations import deployment
from operations.bus import GATEWAY
from operations.errors import OperationFailed
from operations.home import Home, write_private
from operations.processes import PAYMENT_SIMULATOR, SIMULATOR, Process, command, environment, has_payment_simulator
from operations.progress import Progress
from operations.services import SERVICES
from operations.system import System

ORDERS_IN_CONTAINER = "/orders"
GATEWAY_PORT, SIMULATOR_PORT, PAYMENT_SIMULATOR_PORT = 8080, 8081, 8082


def deploy(home: Home, orders: Path) -> None:
    """Make everything that the processes need, and their orders."""
    system = System(home, progress=Progress())
    home.keep_port(GATEWAY, GATEWAY_PORT)
    home.keep_port(SIMULATOR, SIMULATOR_PORT)
    home.keep_port(PAYMENT_SIMULATOR, PAYMENT_SIMULATOR_PORT)
    system.wait_postgres()
    deployment.prepare_databases(home, system.servers, system.progress)
    deployment.prepare_bus(home, system.servers, system.progress)
    deployment.create_administrator(home, system.servers, system.progress)
    for name in (*SERVICES, GATEWAY, SIMULATOR, PAYMENT_SIMULATOR):
        process = Process(name)
        told = environment(home, system.servers, process)
        folder = orders / name
        if "SIGNING_KEY_FILE" in told:
            write_private(folder / "signing.pem", Path(told["SIGNING_KEY_FILE"]).read_text())
            told["SIGNING_KEY_FILE"] = f"{ORDERS_IN_CONTAINER}/signing.pem"
        if name == PAYMENT_SIMULATOR:
            told["BIND"] = "0.0.0.0"  # noqa: S104  # of its container, which only the other containers reach
        if "OUTBOUND_ALLOW" in told and has_payment_simulator(home):
            told["OUTBOUND_ALLOW"] += f",{PAYMENT_SIMULATOR}:{PAYMENT_SIMULATOR_PORT}"
        write_private(folder / "orders.json", json.dumps({"command": command(process), "environment": told}) + "\n")


if __name__ == "__main__":
    given = Home(Path(os.environ["COUNTINGHOUSE_HOME"]))
    given.take_given(os.environ)
    try:
        deploy(given, Path(os.environ["ORDERS"]))
    except OperationFailed as failure:
        sys.exit(str(failure))
