"""Calls of services by whoever runs the system: RPC with the administrator's connection and all keys of the home."""

import getpass
from typing import Any

from operations import keys
from operations.errors import OperationFailed
from operations.services import SERVICES
from operations.system import System

TIMEOUT_SECONDS = 600


class Caller:
    """A connection to the bus for a few calls."""

    def __init__(self, system: System) -> None:
        import base64

        from shared.rpc.client import RpcClient

        passport_keys = {service: base64.b64decode(keys.passport_key(system.home, service)) for service in SERVICES}
        self._client = RpcClient(system.servers.amqp_url, passport_keys, name="operations")

    def __enter__(self) -> "Caller":
        self._client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop()

    def call(self, service: str, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a service as the operating system's user who runs this command.

        Raises: OperationFailed with what the service, or the bus, refused.
        """
        from shared.errors import ServiceError
        from shared.ids import new_id
        from shared.passport import Passport
        from shared.permissions import MODULES

        passport = Passport(
            actor_id=f"system:{getpass.getuser()}",
            actor_name=getpass.getuser(),
            actor_type="system",
            permissions=dict.fromkeys(MODULES, "admin"),
            request_id=new_id("req"),
        )
        try:
            answer = self._client.call(service, method, passport=passport, timeout=TIMEOUT_SECONDS, **arguments)
        except ServiceError as error:
            raise OperationFailed(f"{service} does not do it: {error.title} {error.detail}".strip()) from error
        result: dict[str, Any] = answer.result
        return result
