"""What is told of the keys that sign access tokens; they themselves are made where the system is run."""

from sqlalchemy.orm import Session

from services.users.tokens import SigningKeys
from shared import outbox
from shared.contracts.users import SigningKeyNotFound, SigningKeyRotated
from shared.times import rfc3339


def announce_signing_key(session: Session, keys: SigningKeys, *, key_id: str, reason: str) -> None:
    """Tell of a new key that stands in the key file, and from when on it signs.

    Raises: SigningKeyNotFound.
    Emits: SigningKeyRotated.
    """
    key = keys.published(key_id)
    if key is None:
        raise SigningKeyNotFound()
    outbox.add(session, SigningKeyRotated(signing_key_id=key_id, signs_from=rfc3339(key.signs_from), reason=reason))
