"""The service behind the benchmark's routes; it also says who calls, in place of the users service."""

import base64
import os
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from benchmarks.gateway_probe import PAYLOAD
from shared.database import Database
from shared.passport import Passport
from shared.permissions import BUILT_IN_ROLES
from shared.rpc.entrypoints import command, rpc

_INSERT = sa.text("insert into rows (payload) values (:payload) returning id")


class ProbeService:
    """Does nothing, or inserts a row."""

    name = "users"

    database = Database()

    @rpc(None, is_repeatable=True)
    def noop(self, passport: Passport) -> dict[str, int]:
        return {"id": 1}

    @command(None)
    def insert(self, session: Session, passport: Passport) -> dict[str, int]:
        return {"id": session.execute(_INSERT, {"payload": PAYLOAD}).scalar_one()}

    @rpc(None, is_repeatable=True)
    def get_signing_keys(self, passport: Passport) -> dict[str, Any]:
        key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(os.environ["PROBE_SIGNING_KEY"]))
        point = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "probe"}]}

    @rpc(None, is_repeatable=True)
    def introspect_session(self, passport: Passport, *, session_id: str) -> dict[str, Any]:
        return {
            "active": True,
            "actor_id": "usr_probe",
            "actor_name": "probe",
            "permissions": BUILT_IN_ROLES["administrator"],
            "merchants": "all",
        }
