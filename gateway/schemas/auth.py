"""Sign-in as the API shows and takes it."""

from gateway.schemas import fields
from gateway.schemas.base import Schema

PASSWORD_LENGTH_MAX = 256
NEW_PASSWORD_LENGTH_MIN = 12
USERNAME_LENGTH_MAX = 64
OTP_LENGTH_MAX = 40  # a recovery code has 19 characters


class CredentialsSchema(Schema):
    """Who signs in. `otp` is a code of the authenticator or a recovery code.

    It is needed once the user has two-factor sign-in, and passed over while they have not.
    """

    username = fields.Text(required=True, length_min=1, length_max=USERNAME_LENGTH_MAX)
    password = fields.Text(required=True, length_min=1, length_max=PASSWORD_LENGTH_MAX)
    otp = fields.Text(length_max=OTP_LENGTH_MAX, allow_none=True)


class RefreshTokenSchema(Schema):
    """A refresh token that has not been used yet."""

    refresh_token = fields.Text(required=True, length_min=1, length_max=200)


class TokenPairSchema(Schema):
    """An access token, good for `expires_in` seconds, and the refresh token that gives the next pair, once."""

    access_token = fields.Text(required=True)
    refresh_token = fields.Text(required=True)
    token_type = fields.Word(["Bearer"], required=True)
    expires_in = fields.Integer(required=True)
    must_change_password = fields.Boolean(required=True)


class LogoutQuery(Schema):
    """Which sessions end."""

    everywhere = fields.QueryBoolean(data_key="all", load_default=False)


class PasswordChangeSchema(Schema):
    """A new password: 12 characters or more, and not a common one; there are no rules of composition."""

    current_password = fields.Text(required=True, length_min=1, length_max=PASSWORD_LENGTH_MAX)
    new_password = fields.Text(required=True, length_min=NEW_PASSWORD_LENGTH_MIN, length_max=PASSWORD_LENGTH_MAX)


class TotpEnrolmentSchema(Schema):
    """A second factor to confirm. `otpauth_uri` is for an authenticator's camera, `secret` for typing.

    Each of the `recovery_codes` signs in once in place of a code. None of this is shown again.
    """

    otpauth_uri = fields.Text(required=True)
    secret = fields.Text(required=True)
    recovery_codes = fields.List(fields.Text(), required=True)


class OtpSchema(Schema):
    """A code of the authenticator, six digits."""

    otp = fields.Text(required=True, length_min=1, length_max=OTP_LENGTH_MAX)


class PasswordSchema(Schema):
    """One's own password, once more."""

    password = fields.Text(required=True, length_min=1, length_max=PASSWORD_LENGTH_MAX)


class SigningKeySchema(Schema):
    """A public key, as RFC 7517 and RFC 8037 write it."""

    kty = fields.Text(required=True)
    crv = fields.Text(required=True)
    x = fields.Text(required=True)
    kid = fields.Text(required=True)
    use = fields.Text(required=True)
    alg = fields.Text(required=True)


class SigningKeysSchema(Schema):
    """The keys in force; the first one signs."""

    keys = fields.List(fields.Nested(SigningKeySchema), required=True)
