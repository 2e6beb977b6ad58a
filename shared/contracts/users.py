"""What others may know of users: views, the shape of tokens and API keys, errors, events.

Passwords, tokens and secrets stand in a few answers, once, and never in an event.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NotRequired, TypedDict

from shared.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, RateLimited, Unauthenticated
from shared.events import Event

# Access tokens, which the users service signs and everyone may check (RELIABILITY.md R28).
JWT_ISSUER: Final = "countinghouse"
JWT_AUDIENCE: Final = "countinghouse-api"
JWT_TYPE: Final = "at+jwt"
JWT_ALGORITHM: Final = "EdDSA"
JWT_CLAIMS: Final = ("iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp")
ACCESS_TOKEN_LIFETIME_SECONDS: Final = 600

# The logs know both prefixes and mask what follows them (shared/logs.py).
REFRESH_TOKEN_PREFIX: Final = "chr_"  # noqa: S105 - how such a token begins, no secret
API_KEY_PREFIX: Final = "chk_"
_API_KEY = re.compile(r"chk_([0-9a-z]{26})_([\w-]{40,64})", re.ASCII)

REASON_LENGTH_MAX: Final = 500


def split_api_key(bearer_token: str) -> tuple[str, str] | None:
    """Return the id and the secret's hash of an API key sent as a Bearer token; None for any other token.

    The key `key_01h…` is sent as `chk_01h…_<secret>`. Only the SHA-256 of its secret travels on and is stored.
    """
    match = _API_KEY.fullmatch(bearer_token)
    if match is None:
        return None
    return f"key_{match.group(1)}", hashlib.sha256(match.group(2).encode()).hexdigest()


Merchants = Literal["all"] | list[str]


class GrantView(TypedDict):
    """A role or a merchant, the other one null, that a user holds until `ends_at`."""

    role: str | None
    merchant_id: str | None
    ends_at: str
    granted_by: str
    granted_at: str


class UserView(TypedDict):
    """A member of staff. `roles` and `merchants` last, `grants` end.

    `password_expires_at` is that of a temporary password, null for a chosen one.
    """

    id: str
    username: str
    display_name: str
    email: str | None
    roles: list[str]
    merchants: Merchants
    grants: list[GrantView]
    status: str
    must_change_password: bool
    password_expires_at: str | None
    has_totp: bool
    last_signed_in_at: str | None
    created_at: str
    updated_at: str


class UserWithPasswordView(UserView):
    """A user whose one-time password is shown this once."""

    temporary_password: str


class TotpEnrolmentView(TypedDict):
    """A second factor to confirm: what an authenticator app reads, and the recovery codes, shown this once."""

    otpauth_uri: str
    secret: str
    recovery_codes: list[str]


class MeView(TypedDict):
    """Who asks, as `/me` tells it: a user, or an API key, whose user fields are null.

    `roles` and `merchants` are those of now; `grants` tells which of them end.
    """

    id: str
    type: str
    username: str | None
    display_name: str
    email: str | None
    roles: list[str]
    permissions: dict[str, str]
    merchants: Merchants
    grants: list[GrantView]
    must_change_password: bool
    has_totp: bool
    recovery_codes_left: int


class RoleView(TypedDict):
    """A named set of permissions: module to level."""

    name: str
    description: str
    permissions: dict[str, str]
    is_built_in: bool
    created_at: str
    updated_at: str


class MerchantView(TypedDict):
    """A merchant of the platform: `status` is active or disabled, `version` orders what copies hear of it."""

    id: str
    code: str
    name: str
    status: str
    version: int
    created_at: str
    updated_at: str


class ApiKeyView(TypedDict):
    """A program's key, without its secret: `status` is active, expired or revoked."""

    id: str
    name: str
    roles: list[str]
    merchants: Merchants
    status: str
    expires_at: str | None
    created_at: str
    created_by: str
    revoked_at: str | None


class ApiKeyWithSecretView(ApiKeyView):
    """A new key: `secret` is the whole Bearer token, shown this once."""

    secret: str


class TokenPairView(TypedDict):
    """What a sign-in or a refresh answers."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int
    must_change_password: bool


class Introspection(TypedDict):
    """What a session or an API key is good for right now; `active` false stands alone.

    valid_until: when some of it ends by itself, so that nobody relies on it any longer; None where nothing does.
    """

    active: bool
    actor_id: NotRequired[str]
    actor_name: NotRequired[str]
    permissions: NotRequired[dict[str, str]]
    merchants: NotRequired[Merchants]
    must_change_password: NotRequired[bool]
    valid_until: NotRequired[str | None]


class SessionView(TypedDict):
    """A session that can still be used. `last_used_at` is its sign-in or its latest refresh."""

    id: str
    ip: str
    user_agent: str
    created_at: str
    last_used_at: str
    expires_at: str
    is_current: bool


class AccessView(TypedDict):
    """What a user can see and do now: the highest level of all roles, which roles give what, for which merchants.

    `grants` tells which of these roles and merchants end.
    """

    user_id: str
    username: str
    status: str
    permissions: dict[str, str]
    merchants: Merchants
    roles: list[RoleView]
    grants: list[GrantView]


class ModuleUseView(TypedDict):
    """Of one module: the level that is granted without an end, the one that was used, how often, and when last."""

    module: str
    granted: str
    used: str
    uses: int
    last_used_at: str | None


class LeastPrivilegeView(TypedDict):
    """What a user holds against what they used since an instant, `since`.

    `excess` is what nobody needed, `least` what covers the use, `least_roles` the existing roles that give exactly
    that, null where shrinking would make a role for it.
    """

    user_id: str
    username: str
    status: str
    roles: list[str]
    since: str
    modules: list[ModuleUseView]
    excess: list[str]
    least: dict[str, str]
    least_roles: list[str] | None


class HolderView(TypedDict):
    """Somebody who can do something: `type` is user or api_key, `level` the one they hold, `roles` what gives it."""

    id: str
    type: str
    name: str
    level: str
    roles: list[str]
    merchants: Merchants


class SigningKeysView(TypedDict):
    """A JSON Web Key Set of public keys (RFC 7517); the first one signs."""

    keys: list[dict[str, str]]


class InvalidCredentials(Unauthenticated):
    """The name or the password is wrong, or the user may not sign in."""


class TemporaryPasswordExpired(Unauthenticated):
    """This temporary password has expired: ask for another one."""


class OtpRequired(Unauthenticated):
    """This user has two-factor sign-in: send the code as well."""


class InvalidOtp(Unauthenticated):
    """This code is wrong, or was used already."""


class InvalidRefreshToken(Unauthenticated):
    """This refresh token is unknown, expired or spent: sign in again."""


class SessionOver(Unauthenticated):
    """This session has ended: sign in again."""


class SignInBusy(RateLimited):
    """Too many people sign in at this moment: try again in a few seconds."""


class TooManySignIns(RateLimited):
    """Too many failed sign-ins: wait before the next."""


class WrongPassword(InvalidRequest):
    """The current password is wrong."""


class WrongOtp(InvalidRequest):
    """This code is not the one of the secret at this time."""


class WeakPassword(InvalidRequest):
    """This password is too easy to guess."""


class UserSessionRequired(PermissionDenied):
    """Only a signed-in user can do this, not an API key."""


class GrantExceedsOwn(PermissionDenied):
    """Nobody grants, or changes in others, more than they hold themselves."""


class SigningKeyNotFound(NotFound):
    """There is no such signing key."""


class SessionNotFound(NotFound):
    """This user has no such open session."""


class UserNotFound(NotFound):
    """There is no such user."""


class RoleNotFound(NotFound):
    """There is no such role."""


class MerchantNotFound(NotFound):
    """There is no such merchant."""


class MerchantMissing(MerchantNotFound):
    """There is no such merchant."""

    code = MerchantNotFound.code  # to a caller the same; to the kernel, that it has not asked the owner yet

    def __init__(self, merchant_id: str) -> None:
        super().__init__()
        self.merchant_id = merchant_id


class ApiKeyNotFound(NotFound):
    """There is no such API key."""


class UsernameTaken(Conflict):
    """Another user has this username."""


class RoleNameTaken(Conflict):
    """Another role has this name."""


class MerchantCodeTaken(Conflict):
    """Another merchant has this code."""


class LastAdministrator(Conflict):
    """The last active administrator stays."""


class TotpOn(Conflict):
    """Two-factor sign-in is on already."""


class TotpOff(Conflict):
    """Two-factor sign-in has not been set up."""


class RoleBuiltIn(Conflict):
    """A built-in role cannot be changed or deleted."""


class RoleInUse(Conflict):
    """Users or API keys still have this role."""


Changes = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _OfUser:
    """What every event about one user says."""

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "user"

    user_id: str
    username: str


@dataclass(frozen=True, kw_only=True)
class UserCreated(_OfUser, Event):
    """A user was added."""

    roles: list[str]
    merchants: Merchants
    changes: Changes


@dataclass(frozen=True, kw_only=True)
class UserUpdated(_OfUser, Event):
    """Fields of a user were changed."""

    changes: Changes


@dataclass(frozen=True, kw_only=True)
class UserShrunk(_OfUser, Event):
    """A user's roles were replaced by the least that cover what they used; `excess` is what went."""

    reason: str
    excess: list[str]
    changes: Changes


@dataclass(frozen=True, kw_only=True)
class UserDisabled(_OfUser, Event):
    """A user may no longer sign in; all sessions ended."""

    reason: str
    changes: Changes


@dataclass(frozen=True, kw_only=True)
class UserEnabled(_OfUser, Event):
    """A disabled user may sign in again."""

    changes: Changes
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class GrantEnded(_OfUser, Event):
    """A role or a merchant that a user held until a time was theirs no longer from that time on."""

    role: str | None
    merchant_id: str | None
    ended_at: str


@dataclass(frozen=True, kw_only=True)
class PasswordReset(_OfUser, Event):
    """Somebody gave a user a one-time password; all sessions ended."""

    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class PasswordChanged(_OfUser, Event):
    """A user changed their own password; their other sessions ended."""


@dataclass(frozen=True, kw_only=True)
class TotpBegun(_OfUser, Event):
    """A user was shown a secret for two-factor sign-in, which is not on before it is confirmed."""


@dataclass(frozen=True, kw_only=True)
class TotpEnabled(_OfUser, Event):
    """A user turned two-factor sign-in on."""


@dataclass(frozen=True, kw_only=True)
class TotpDisabled(_OfUser, Event):
    """A user turned their own two-factor sign-in off."""


@dataclass(frozen=True, kw_only=True)
class TotpReset(_OfUser, Event):
    """Somebody turned a user's two-factor sign-in off, so that the user can sign in without the device."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class RecoveryCodeUsed(_OfUser, Event):
    """A user signed in by a recovery code, in place of the device."""

    codes_left: int


@dataclass(frozen=True, kw_only=True)
class SignedIn(_OfUser, Event):
    """A user signed in. second_factor: totp, recovery_code, or None for a user without one."""

    session_id: str
    second_factor: str | None = None


@dataclass(frozen=True, kw_only=True)
class SignInFailed(Event):
    """A password, or the code after it, did not fit.

    An unknown name is not repeated: people type passwords into the wrong field. factor: password or otp.
    """

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "user"

    user_id: str | None
    username: str | None
    failures: int
    locked_seconds: int
    factor: str = "password"

    def resource_id(self) -> str:
        """Return the user's id, or nothing when there is no such user."""
        return self.user_id or ""


@dataclass(frozen=True, kw_only=True)
class SessionEnded(Event):
    """A session ended.

    why: signed_out, ended_by_administrator, password_changed, password_reset, user_disabled, refresh_token_reused.
    """

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "session"

    session_id: str
    user_id: str
    username: str
    why: str


@dataclass(frozen=True, kw_only=True)
class RefreshTokenReused(Event):
    """A spent refresh token was shown: somebody else may have it, so the whole session ended."""

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "session"

    session_id: str
    user_id: str
    username: str


@dataclass(frozen=True, kw_only=True)
class _OfRole:
    """What every event about one role says."""

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "role"

    name: str
    changes: Changes

    def resource_id(self) -> str:
        """Return the role's name, which is its id."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class RoleCreated(_OfRole, Event):
    """A role was added."""


@dataclass(frozen=True, kw_only=True)
class RoleUpdated(_OfRole, Event):
    """A role's description or permissions were changed."""


@dataclass(frozen=True, kw_only=True)
class RoleDeleted(_OfRole, Event):
    """A role that nobody had was deleted."""


@dataclass(frozen=True, kw_only=True)
class MerchantCreated(Event):
    """A merchant was added."""

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "merchant"

    merchant_id: str
    code: str
    name: str
    status: str
    version: int


@dataclass(frozen=True, kw_only=True)
class MerchantUpdated(Event):
    """A merchant's fields were changed; carries all of them, with the version that orders copies."""

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "merchant"

    merchant_id: str
    code: str
    name: str
    status: str
    version: int
    changes: Changes


@dataclass(frozen=True, kw_only=True)
class SigningKeyRotated(Event):
    """A new key was published, which signs access tokens from an instant on."""

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "signing_key"

    signing_key_id: str
    signs_from: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ApiKeyCreated(Event):
    """A program's key was made."""

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "api_key"

    api_key_id: str
    name: str
    roles: list[str]
    merchants: Merchants
    expires_at: str | None


@dataclass(frozen=True, kw_only=True)
class ApiKeyRevoked(Event):
    """A program's key was ended."""

    service: ClassVar[str] = "users"
    resource_type: ClassVar[str] = "api_key"

    api_key_id: str
    name: str
