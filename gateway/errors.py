"""The refusals that the gateway itself speaks; those of the services stand in their contracts."""

from shared.errors import InvalidRequest, PermissionDenied, Unauthenticated, Unavailable


class InvalidToken(Unauthenticated):
    """This token is not one of ours, or no longer valid."""


class TokenExpired(Unauthenticated):
    """This access token has expired; use the refresh token."""


class SessionEnded(Unauthenticated):
    """This session has ended; sign in again."""


class PasswordChangeRequired(PermissionDenied):
    """The password must be changed before anything else."""


class IdempotencyKeyRequired(InvalidRequest):
    """This route moves money and requires the header Idempotency-Key."""


class InvalidIdempotencyKey(InvalidRequest):
    """An Idempotency-Key is 1 to 255 visible ASCII characters."""


class CardNumberInText(InvalidRequest):
    """A card number does not belong into a text."""


class TokenInText(InvalidRequest):
    """A token or a key does not belong into a text."""


class ServiceUnavailable(Unavailable):
    """A service that this request needs does not answer right now."""
