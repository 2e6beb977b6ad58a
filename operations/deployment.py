"""What a deployment does before any process starts: databases, migrations, exchanges and queues, an administrator.

Each step keeps a stamp of what it worked from, so that a second `up` does nothing again.
"""

import json
import os
import subprocess
import sys

from operations import migrate, topology
from operations.databases import close_to_everybody, create_databases, service_databases
from operations.errors import OperationFailed
from operations.home import Home, write_private
from operations.processes import Process, environment, gateway_url
from operations.progress import Progress
from operations.servers import Servers
from operations.supervision import ROOT

OUTPUT_TAIL = 3000


def prepare_databases(home: Home, servers: Servers, progress: Progress) -> None:
    """Make the roles and databases that lack, and bring each to its service's newest version."""
    databases = service_databases(home, servers.database_url)
    with progress.step("Databases and roles") as step:
        made = create_databases(home, servers.database_url, databases)
        if servers.postgres and made:
            close_to_everybody(servers.database_url)
        step.outcome = f"{made} made" if made else "there"
    with progress.step("Migrations") as step:
        done: dict[str, str] = {} if made else home.stamps.get("migrations", {})
        wanted = {row.service: f"{migrate.fingerprint(row.service)} {_place(row.app_url)}" for row in databases}
        behind = [row for row in databases if done.get(row.service) != wanted[row.service]]
        for row in behind:
            migrate.upgrade(row.service, row.owner_url, app_role=row.app_role)
        home.stamps.set("migrations", wanted)
        step.outcome = f"{len(behind)} brought up to date" if behind else "up to date"


def prepare_bus(home: Home, servers: Servers, progress: Progress) -> None:
    """Declare every exchange and queue, before anything is published."""
    with progress.step("Exchanges and queues") as step:
        wanted = f"{topology.fingerprint()} {_place(servers.amqp_url)}"
        if servers.rabbitmq and home.stamps.get("topology") == wanted:
            step.outcome = "there"
            return
        servers.make_managed_users()
        run_module("operations.topology", {"AMQP_URL": servers.amqp_url})
        home.stamps.set("topology", wanted)
        step.outcome = "declared"


def create_administrator(home: Home, servers: Servers, progress: Progress) -> None:
    """Make the first administrator, once, and keep the name and the password for whoever signs in first."""
    if home.stamps.get("administrator"):
        return
    with progress.step("First administrator") as step:
        output = run_module("services.users.bootstrap", environment(home, servers, Process("users")))
        made = _last_json(output)
        if made.get("password"):
            write_private(home.first_sign_in, json.dumps({"url": gateway_url(home), **made}, indent=1) + "\n")
        home.stamps.set("administrator", True)
        step.outcome = str(made.get("username", "there"))


def correct_first_sign_in(home: Home) -> None:
    """Write the gateway's address into the first sign-in anew, since its port may have changed."""
    if not home.first_sign_in.exists():
        return
    known: dict[str, str] = json.loads(home.first_sign_in.read_text())
    if known["url"] != gateway_url(home):
        write_private(home.first_sign_in, json.dumps({**known, "url": gateway_url(home)}, indent=1) + "\n")


def add_administrator(home: Home, servers: Servers, username: str) -> dict[str, str]:
    """Make one more administrator.

    Returns: username and first password.
    """
    told = environment(home, servers, Process("users"))
    return _last_json(run_module("services.users.bootstrap", told, "--username", username))


def _last_json(output: str) -> dict[str, str]:
    """Return the JSON object in the last line, nothing when nothing was printed."""
    lines = output.strip().splitlines()
    found: dict[str, str] = json.loads(lines[-1]) if lines else {}
    return found


def run_module(module: str, told: dict[str, str], *arguments: str) -> str:
    """Run a module of ours to its end.

    Returns: what it prints.   Raises: OperationFailed with what it complains of.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **told},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise OperationFailed(f"{module} failed:\n{(done.stdout + done.stderr)[-OUTPUT_TAIL:]}")
    return done.stdout


def _place(url: str) -> str:
    """Return a URL without its user and password."""
    return url.rpartition("@")[2]
