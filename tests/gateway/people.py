"""A fake of the services behind the gateway, written by hand: it signs real tokens and remembers calls."""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.contracts.users import JWT_ALGORITHM, JWT_AUDIENCE, JWT_ISSUER, JWT_TYPE
from shared.passport import Passport
from shared.permissions import BUILT_IN_ROLES
from shared.rpc.wire import Answer

AURORA, BOREALIS = "mer_aurora", "mer_borealis"

PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"permissions": BUILT_IN_ROLES["administrator"], "merchants": "all"},
    "bob": {"permissions": BUILT_IN_ROLES["operator"], "merchants": [AURORA]},
    "charlie": {"permissions": BUILT_IN_ROLES["operator"], "merchants": [BOREALIS]},
    "dora": {"permissions": BUILT_IN_ROLES["auditor"], "merchants": "all"},
}


@dataclass
class SeenCall:
    """One call that reached the services."""

    service: str
    method: str
    passport: Passport
    timeout: float
    idempotency_key: str | None
    arguments: dict[str, Any]


@dataclass
class FakeServices:
    """Answers as it was told to. A callable is called with the arguments, an exception is raised."""

    calls: list[SeenCall] = field(default_factory=list)
    is_up: bool = True

    def __post_init__(self) -> None:
        self._answers: dict[tuple[str, str], Any] = {}
        self.key = Ed25519PrivateKey.generate()
        self.sessions: dict[str, dict[str, Any]] = {
            f"ses_{name}": {"active": True, "actor_id": f"usr_{name}", "actor_name": name, **person}
            for name, person in PEOPLE.items()
        }
        self.answer("users", "get_signing_keys", {"keys": [self.jwk()]})
        self.answer("users", "introspect_session", lambda session_id: self.sessions.get(session_id, {"active": False}))

    def answer(self, service: str, method: str, answer: Any) -> None:
        """Say what a method answers from now on."""
        self._answers[service, method] = answer

    def calls_of(self, service: str, method: str) -> list[SeenCall]:
        """Return the calls of one method."""
        return [call for call in self.calls if (call.service, call.method) == (service, method)]

    def call(
        self,
        service: str,
        method: str,
        *,
        passport: Passport,
        timeout: float,
        idempotency_key: str | None = None,
        **arguments: Any,
    ) -> Answer:
        """Stand in for shared.rpc.client.RpcClient.call."""
        self.calls.append(SeenCall(service, method, passport, timeout, idempotency_key, arguments))
        answer = self._answers[service, method]
        if isinstance(answer, Callable):  # type: ignore[arg-type]
            answer = answer(**arguments)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Answer) else Answer(answer)

    def jwk(self, kid: str = "key-1") -> dict[str, str]:
        """Return the public half of the signing key."""
        point = base64.urlsafe_b64encode(self.key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {"kty": "OKP", "crv": "Ed25519", "x": point, "kid": kid, "alg": "EdDSA", "use": "sig"}

    def token(self, name: str, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return an access token of somebody; a claim changed to None is left out."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": JWT_ISSUER,
            "aud": JWT_AUDIENCE,
            "sub": f"usr_{name}",
            "sid": f"ses_{name}",
            "jti": f"jti_{name}",
            "iat": now,
            "nbf": now,
            "exp": now + 600,
        }
        claims = {claim: value for claim, value in (claims | changes).items() if value is not None}
        return jwt.encode(
            claims, self.key, algorithm=JWT_ALGORITHM, headers={"kid": "key-1", "typ": JWT_TYPE} | (header or {})
        )
