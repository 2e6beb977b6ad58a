"""What a process is told by its environment, read once and checked at the start."""

import base64
import os
from dataclasses import dataclass
from functools import cache

from environs import Env

PASSPORT_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """The settings that every service process has."""

    service: str
    instance: str
    database_url: str
    amqp_url: str
    passport_key: bytes
    callee_keys: dict[str, bytes]
    log_level: str
    workers_max: int
    database_connections_max: int


def passport_key(text: str) -> bytes:
    """Return the key in a base64 string. Raises: ValueError when it is not 32 bytes."""
    key = base64.b64decode(text)
    if len(key) != PASSPORT_KEY_BYTES:
        raise ValueError(f"a passport key has {PASSPORT_KEY_BYTES} bytes, this one has {len(key)}")
    return key


def callee_keys() -> dict[str, bytes]:
    """Return the passport keys of the services that this process may call, from PASSPORT_KEY_<SERVICE>."""
    prefix = "PASSPORT_KEY_"
    return {
        name.removeprefix(prefix).lower(): passport_key(value)
        for name, value in os.environ.items()
        if name.startswith(prefix)
    }


@cache
def process_config() -> ProcessConfig:
    """Return this process's settings. Raises: environs.EnvError, which names the variable that lacks."""
    env = Env()
    return ProcessConfig(
        service=env.str("SERVICE"),
        instance=env.str("INSTANCE", f"{env.str('SERVICE')}-{os.getpid()}"),
        database_url=env.str("DATABASE_URL"),
        amqp_url=env.str("AMQP_URL"),
        passport_key=passport_key(env.str("PASSPORT_KEY")),
        callee_keys=callee_keys(),
        log_level=env.str("LOG_LEVEL", "INFO"),
        workers_max=env.int("MAX_WORKERS", 32),
        database_connections_max=env.int("DATABASE_CONNECTIONS", 10),
    )
