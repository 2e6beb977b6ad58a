"""Signatures per Standard Webhooks, which callbacks bear, and what we ask and are answered too; and Stripe's own.

Libraries do the checks: HMAC-SHA-256 over timestamp and body (and id), in constant time, five minutes either way.
"""

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook, WebhookVerificationError

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
HEADERS: Final = (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
STRIPE_HEADER: Final = "stripe-signature"
STRIPE_TOLERANCE_SECONDS: Final = 300
_STRIPE_TIME = re.compile(r"(?:^|,)t=([0-9]{1,12})(?=,|$)")
_ID = re.compile(r"[!-~]{1,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class BadSignature(Exception):
    """This was not signed with one of these secrets, or not within the last minutes."""


def check_signature(secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> tuple[str, datetime]:
    """Return a message's id and when it was signed.

    secrets: any of them may have signed it.
    headers: by names in lower case.
    Raises: BadSignature.
    """
    known = {name: headers.get(name, "") for name in HEADERS}
    if not _ID.fullmatch(known[ID_HEADER]) or not _TIMESTAMP.fullmatch(known[TIMESTAMP_HEADER]):
        raise BadSignature
    for secret in secrets:
        try:
            Webhook(secret).verify(body, known, json_parse=False)
        except (WebhookVerificationError, ValueError):  # the library stumbles over what is no base64 and no UTF-8
            continue
        return known[ID_HEADER], datetime.fromtimestamp(int(known[TIMESTAMP_HEADER]), UTC)
    raise BadSignature


def sign(secret: str, *, message_id: str, body: bytes, at: datetime) -> dict[str, str]:
    """Return the headers that sign a message."""
    signature = Webhook(secret).sign(message_id, at.astimezone(UTC), body.decode())
    return {ID_HEADER: message_id, TIMESTAMP_HEADER: str(int(at.timestamp())), SIGNATURE_HEADER: signature}


def check_stripe_signature(secrets: Sequence[str], header: str, body: bytes) -> datetime:
    """Return when Stripe signed an event. Its library is imported with the first: it takes a second.

    secrets: any of them may have signed it.
    Raises: BadSignature.
    """
    import stripe

    times = _STRIPE_TIME.findall(header)
    # The library takes what was signed in the future.
    if len(times) != 1 or int(times[0]) > time.time() + STRIPE_TOLERANCE_SECONDS:
        raise BadSignature
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(body.decode(), header, secret, STRIPE_TOLERANCE_SECONDS)
        except (stripe.SignatureVerificationError, TypeError, ValueError):  # it stumbles over what is no ASCII
            continue
        return datetime.fromtimestamp(int(times[0]), UTC)
    raise BadSignature
