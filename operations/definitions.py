"""RabbitMQ's definitions: our virtual host, users and permissions in one document, for a node's boot or its API."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import requests

from operations.bus import VHOST, BusUser
from operations.errors import OperationFailed
from operations.home import Home

TIMEOUT_SECONDS = 30


def definitions(home: Home, users: Sequence[BusUser]) -> dict[str, Any]:
    """Return the document that makes these users and nobody else."""
    return {
        "vhosts": [{"name": VHOST}],
        "users": [_user(home, user) for user in users],
        "permissions": [
            {"user": user.name, "vhost": VHOST, "configure": user.configure, "write": user.write, "read": user.read}
            for user in users
        ],
        "topic_permissions": [
            {
                "user": user.name,
                "vhost": VHOST,
                "exchange": "events",
                "write": user.publishes,
                "read": user.hears,
            }
            for user in users
        ],
    }


def import_definitions(home: Home, users: Sequence[BusUser], *, management_url: str, administrator: str) -> None:
    """Make these users on a broker that is somebody else's, through its management API.

    management_url: http://name:password@host:15672
    administrator: the broker's own, who is given our virtual host to declare the topology in.
    """
    document = definitions(home, users)
    everything = {"user": administrator, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}
    document["permissions"].append(everything)
    try:
        answer = requests.post(f"{management_url}/api/definitions", json=document, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise OperationFailed(f"The broker's users could not be made: {error}") from error


def password_hash(password: str) -> str:
    """Return RabbitMQ's salted hash of a password.

    The salt comes from the password, which is long and random, so that equal passwords give equal documents.
    Source: rabbitmq.com/docs/passwords.
    """
    salt = hashlib.sha256(b"salt:" + password.encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _user(home: Home, user: BusUser) -> dict[str, object]:
    return {
        "name": user.name,
        "password_hash": password_hash(home.password(f"bus:{user.name}")),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": list(user.tags),
        "limits": {},
    }
