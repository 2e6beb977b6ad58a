"""Changes the key that signs access tokens while everything runs (shared/signing_keys.py)."""

import os
from datetime import datetime, timedelta
from pathlib import Path

from operations.calls import Caller
from operations.errors import OperationFailed
from operations.home import Home, write_private
from operations.keys import signing_key_file
from operations.system import System

# A gateway asks for a key that it does not know at most every five seconds; an instance of users sees a changed file at
# once. The rest is for clocks that differ and for machines that stand still for a moment.
PUBLISHED_SECONDS = 20


def rotate_signing_key(system: System, *, reason: str, after_seconds: int = PUBLISHED_SECONDS) -> datetime:
    """Publish a new key that signs from so many seconds later; the present one is published until its tokens end.

    Returns: the instant from which the new key signs.
    Raises: OperationFailed while an earlier rotation has not changed over yet, or when users does not tell of it.
    """
    key_id, signs_from = _add_key(system.home, after_seconds)
    try:
        with Caller(system) as caller:
            caller.call("users", "announce_signing_key", key_id=key_id, reason=reason)
    except OperationFailed as error:
        raise OperationFailed(f"The new key is written and will sign, but the log was not told. {error}") from error
    return signs_from


def _add_key(home: Home, after_seconds: int) -> tuple[str, datetime]:
    from shared.signing_keys import SigningKey, published_keys, read_keys, written
    from shared.times import rfc3339, utc_now

    now, path = utc_now(), signing_key_file(home)
    known = published_keys(read_keys(path.read_text()), now)
    waiting = [key for key in known if key.signs_from > now]
    if waiting:
        raise OperationFailed(f"A new key waits already: it signs from {rfc3339(waiting[0].signs_from)}.")
    new = SigningKey.new(signs_from=now + timedelta(seconds=after_seconds))
    text = written([new, *known])
    write_private(path, text)
    # In containers, users reads its own copy, in the volume that `operations.deploy` wrote.
    if orders := os.environ.get("ORDERS"):
        write_private(Path(orders) / "users" / path.name, text)
    return new.key_id, new.signs_from
