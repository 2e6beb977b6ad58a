"""Declare every exchange and queue of the bus before any process starts: `python -m operations.topology`.

AMQP_URL is the administrator's: services themselves may declare nothing but the queue of their replies.
"""

import hashlib
import os
import sys
import warnings
from pathlib import Path

from operations.services import SERVICES
from operations.supervision import ROOT


def fingerprint() -> str:
    """Return a hash of all files that decide what the topology is."""
    files = [ROOT / "shared/topology.py", Path(__file__), *(ROOT / "services" / s / "service.py" for s in SERVICES)]
    contracts = sorted((ROOT / "shared/contracts").glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in [*files, *contracts] if path.exists())).hexdigest()


def declare(amqp_url: str) -> None:
    """Declare the topology of all services; harmless where it stands."""
    warnings.filterwarnings("ignore", message=".*[Ee]ventlet.*deprecat.*")
    from shared.runner import load
    from shared.topology import declare_topology

    declare_topology(amqp_url, [load(service.target) for service in SERVICES.values()])


if __name__ == "__main__":
    declare(os.environ["AMQP_URL"])
    sys.exit()
