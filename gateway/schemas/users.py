"""Users, roles, API keys and merchants as the API shows and takes them."""

from typing import Any

import marshmallow as ma
from marshmallow import validate

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema
from shared.permissions import LEVELS, MODULES

USER_STATUSES = ("active", "disabled")
API_KEY_STATUSES = ("active", "expired", "revoked")
GRANTED_MERCHANTS_MAX = 1000
GRANTED_ROLES_MAX = 50
GRANTS_MAX = 100
NAME_LENGTH_MAX = 100


class MerchantsField(ma.fields.Field[Any]):
    """Which merchants somebody sees: "all", or a list of ids."""

    def __init__(self, **kwargs: Any) -> None:
        shape = {
            "oneOf": [
                {"type": "string", "enum": ["all"]},
                {
                    "type": "array",
                    "items": {"type": "string", "maxLength": fields.IDENTIFIER_LENGTH_MAX},
                    "maxItems": GRANTED_MERCHANTS_MAX,
                },
            ]
        }
        super().__init__(**kwargs | {"metadata": shape | kwargs.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if value == "all":
            return value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ma.ValidationError('Either "all" or a list of merchant ids.')
        if len(value) > GRANTED_MERCHANTS_MAX or any(len(v) > fields.IDENTIFIER_LENGTH_MAX for v in value):
            raise ma.ValidationError("This list is too long.")
        return value


def _pattern(pattern: str, error: str) -> validate.Regexp:
    # Python's `$` lets a line end pass, which the look-ahead does not; so it means the same to readers of the document.
    return validate.Regexp(rf"{pattern}(?!\n)", error=error)


def _username(**kwargs: Any) -> fields.Text:
    rule = _pattern(r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$", "Letters, digits and . _ @ + -, a letter or digit first.")
    return fields.Text(length_min=1, length_max=64, validate=rule, **kwargs)


def _email() -> fields.Text:
    return fields.Text(
        length_max=254, allow_none=True, validate=_pattern(r"^[^@\s]+@[^@\s]+$", "This is no address of e-mail.")
    )


def _role_names(**kwargs: Any) -> fields.List[Any]:
    return fields.List(
        fields.Text(length_min=1, length_max=60), validate=validate.Length(max=GRANTED_ROLES_MAX), **kwargs
    )


def _permissions(**kwargs: Any) -> fields.Dict:
    return fields.Dict(keys=fields.Word(MODULES), values=fields.Word(LEVELS), **kwargs)


class GrantSchema(Schema):
    """A role or a merchant, the other one null, that a user holds until `ends_at`."""

    role = fields.Text(required=True, allow_none=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    ends_at = fields.Timestamp(required=True)
    granted_by = fields.Text(required=True)
    granted_at = fields.Timestamp(required=True)


class NewGrantSchema(Schema):
    """A role or a merchant, one of the two, to hold until `ends_at`."""

    role = fields.Text(length_min=1, length_max=60)
    merchant_id = fields.Identifier()
    ends_at = fields.Timestamp(required=True)

    @ma.validates_schema
    def _check_one(self, data: dict[str, Any], **_: Any) -> None:
        if ("role" in data) == ("merchant_id" in data):
            raise ma.ValidationError("Either a role or a merchant.", "role")


def _new_grants() -> fields.List[Any]:
    return fields.List(fields.Nested(NewGrantSchema), validate=validate.Length(max=GRANTS_MAX))


class UserSchema(Schema):
    """A member of staff. `roles` and `merchants` last, `grants` end.

    `password_expires_at` is that of a temporary password, null for a chosen one.
    """

    id = fields.Text(required=True)
    username = fields.Text(required=True)
    display_name = fields.Text(required=True)
    email = fields.Text(required=True, allow_none=True)
    roles = fields.List(fields.Text(), required=True)
    merchants = MerchantsField(required=True)
    grants = fields.List(fields.Nested(GrantSchema), required=True)
    status = fields.Word(USER_STATUSES, required=True)
    must_change_password = fields.Boolean(required=True)
    password_expires_at = fields.Timestamp(required=True, allow_none=True)
    has_totp = fields.Boolean(required=True)
    last_signed_in_at = fields.Timestamp(required=True, allow_none=True)
    created_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


class UserWithPasswordSchema(UserSchema):
    """A user with the temporary password, shown this once: it must be changed, and ends at `password_expires_at`."""

    temporary_password = fields.Text(required=True)


class NewUserSchema(Schema):
    """A user to add, who holds no role and sees no merchant unless given."""

    username = _username(required=True)
    display_name = fields.Text(length_max=NAME_LENGTH_MAX)
    email = _email()
    roles = _role_names()
    merchants = MerchantsField()
    grants = _new_grants()


class UserChangesSchema(Schema):
    """What to change of a user. Each list replaces the one that is there.

    To disable and enable there are routes of their own, which take a reason.
    """

    username = _username()
    display_name = fields.Text(length_min=1, length_max=NAME_LENGTH_MAX)
    email = _email()
    roles = _role_names()
    merchants = MerchantsField()
    grants = _new_grants()


class UserQuery(PageQuery):
    """Which users. `merchant_id` finds who sees that merchant, by name or because they see all."""

    q = fields.Text(length_max=100)
    status = fields.Word(USER_STATUSES)
    role = fields.Text(length_max=60)
    merchant_id = fields.Identifier()


class SessionSchema(Schema):
    """A session that can still be used. `is_current` marks the one that asks; `last_used_at` is its latest refresh."""

    id = fields.Text(required=True)
    ip = fields.Text(required=True)
    user_agent = fields.Text(required=True)
    created_at = fields.Timestamp(required=True)
    last_used_at = fields.Timestamp(required=True)
    expires_at = fields.Timestamp(required=True)
    is_current = fields.Boolean(required=True)


class HolderQuery(PageQuery):
    """Who can do what: a permission such as `cards:operate`, and for which merchant."""

    permission = fields.Text(required=True, length_min=1, length_max=60)
    merchant_id = fields.Identifier()


class HolderSchema(Schema):
    """A user or an API key that holds a permission: at which level, by which roles, for which merchants."""

    id = fields.Text(required=True)
    type = fields.Word(("user", "api_key"), required=True)
    name = fields.Text(required=True)
    level = fields.Word(LEVELS, required=True)
    roles = fields.List(fields.Text(), required=True)
    merchants = MerchantsField(required=True)


class OptionalReasonSchema(Schema):
    """Why, if there is something to say."""

    reason = fields.Reason(required=False, allow_none=True)


class MeSchema(Schema):
    """Who asks: a user, or an API key, which has no username and no email."""

    id = fields.Text(required=True)
    type = fields.Word(["user", "api_key"], required=True)
    username = fields.Text(required=True, allow_none=True)
    display_name = fields.Text(required=True)
    email = fields.Text(required=True, allow_none=True)
    roles = fields.List(fields.Text(), required=True)
    permissions = _permissions(required=True)
    merchants = MerchantsField(required=True)
    grants = fields.List(fields.Nested(GrantSchema), required=True)
    must_change_password = fields.Boolean(required=True)
    has_totp = fields.Boolean(required=True)
    recovery_codes_left = fields.Integer(required=True)


class RoleSchema(Schema):
    """A role: for each module one level."""

    name = fields.Text(required=True)
    description = fields.Text(required=True)
    permissions = _permissions(required=True)
    is_built_in = fields.Boolean(required=True)
    created_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


class AccessSchema(Schema):
    """What a user can see and do, and the roles that give it; a disabled user can do nothing while it lasts."""

    user_id = fields.Text(required=True)
    username = fields.Text(required=True)
    status = fields.Word(USER_STATUSES, required=True)
    permissions = _permissions(required=True)
    merchants = MerchantsField(required=True)
    roles = fields.List(fields.Nested(RoleSchema), required=True)
    grants = fields.List(fields.Nested(GrantSchema), required=True)


class ModuleUseSchema(Schema):
    """Of one module: the level that is granted without an end, the one that was used, how often, and when last."""

    module = fields.Word(MODULES, required=True)
    granted = fields.Word(LEVELS, required=True)
    used = fields.Word(LEVELS, required=True)
    uses = fields.Integer(required=True)
    last_used_at = fields.Timestamp(required=True, allow_none=True)


class LeastPrivilegeSchema(Schema):
    """What a user holds against what they used since that instant.

    `excess` is what nobody needed, `least` what covers the use, `least_roles` the existing roles that give exactly
    that, null where shrinking would make a role for it.
    """

    user_id = fields.Text(required=True)
    username = fields.Text(required=True)
    status = fields.Word(USER_STATUSES, required=True)
    roles = fields.List(fields.Text(), required=True)
    since = fields.Timestamp(required=True)
    modules = fields.List(fields.Nested(ModuleUseSchema), required=True)
    excess = fields.List(fields.Text(), required=True)
    least = _permissions(required=True)
    least_roles = fields.List(fields.Text(), required=True, allow_none=True)


class NewRoleSchema(Schema):
    """A role to add. Modules that are not named have the level `none`."""

    name = fields.Text(
        required=True,
        length_min=1,
        length_max=60,
        validate=_pattern(r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", "Letters, digits, spaces and . _ -."),
    )
    description = fields.Text(length_max=500)
    permissions = _permissions(required=True)


class RoleChangesSchema(Schema):
    """What to change of a role; `permissions` replace all that were."""

    description = fields.Text(length_max=500)
    permissions = _permissions()


class ApiKeySchema(Schema):
    """A program's key, without its secret."""

    id = fields.Text(required=True)
    name = fields.Text(required=True)
    roles = fields.List(fields.Text(), required=True)
    merchants = MerchantsField(required=True)
    status = fields.Word(API_KEY_STATUSES, required=True)
    expires_at = fields.Timestamp(required=True, allow_none=True)
    created_at = fields.Timestamp(required=True)
    created_by = fields.Text(required=True)
    revoked_at = fields.Timestamp(required=True, allow_none=True)


class ApiKeyWithSecretSchema(ApiKeySchema):
    """A new key. `secret` is the whole Bearer token, and is shown this once."""

    secret = fields.Text(required=True)


class NewApiKeySchema(Schema):
    """A key to make for a program."""

    name = fields.Text(required=True, length_min=1, length_max=NAME_LENGTH_MAX)
    roles = _role_names(required=True)
    merchants = MerchantsField(required=True)
    expires_at = fields.Timestamp(allow_none=True)


class MerchantSchema(Schema):
    """A merchant of the platform."""

    id = fields.Text(required=True)
    code = fields.Text(required=True)
    name = fields.Text(required=True)
    status = fields.Word(USER_STATUSES, required=True)
    created_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


def _code(**kwargs: Any) -> fields.Text:
    rule = _pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]*$", "Letters, digits and . _ -, a letter or digit first.")
    return fields.Text(length_min=1, length_max=64, validate=rule, **kwargs)


class NewMerchantSchema(Schema):
    """A merchant to add."""

    code = _code(required=True)
    name = fields.Text(required=True, length_min=1, length_max=NAME_LENGTH_MAX)
    status = fields.Word(USER_STATUSES)


class MerchantChangesSchema(Schema):
    """What to change of a merchant."""

    code = _code()
    name = fields.Text(length_min=1, length_max=NAME_LENGTH_MAX)
    status = fields.Word(USER_STATUSES)


class MerchantQuery(PageQuery):
    """Which merchants. `q` is part of the code or the name."""

    q = fields.Text(length_max=100)
    status = fields.Word(USER_STATUSES)
