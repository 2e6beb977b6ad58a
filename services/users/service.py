"""What users offers over the bus. The gateway signs people in here, and asks what their sessions are good for."""

from collections.abc import Sequence
from typing import Any

from environs import Env
from nameko.extensions import DependencyProvider

from services.users import queries
from services.users.sealing import SecretCipher
from services.users.tokens import SigningKeys
from services.users.usecases import (
    api_keys,
    grants,
    least_privilege,
    merchants,
    roles,
    sessions,
    signing_keys,
    totp,
    users,
)
from shared.contracts.users import (
    AccessView,
    ApiKeyWithSecretView,
    Introspection,
    LeastPrivilegeView,
    MerchantView,
    MeView,
    RoleView,
    SigningKeysView,
    TokenPairView,
    TotpEnrolmentView,
    UserView,
    UserWithPasswordView,
)
from shared.database import Database
from shared.paging import LIMIT_DEFAULT, Page
from shared.passport import Passport, service_passport
from shared.rpc.entrypoints import RpcClient, command, query, rpc
from shared.rpc.wire import Answer, current_call
from shared.ticks import every

HOUSEKEEPING_SECONDS = 3600
DUE_GRANTS_SECONDS = 1
AUDIT_SECONDS_MAX = 8


class SigningKeyFile(DependencyProvider):
    """The keys in the file SIGNING_KEY_FILE, without which this service does not start."""

    def setup(self) -> None:
        self._keys = SigningKeys.from_file(Env().str("SIGNING_KEY_FILE"))

    def get_dependency(self, worker_ctx: Any) -> SigningKeys:
        return self._keys


class TotpKey(DependencyProvider):
    """The key TOTP_KEY, without which this service does not start."""

    def setup(self) -> None:
        self._cipher = SecretCipher.from_environment()

    def get_dependency(self, worker_ctx: Any) -> SecretCipher:
        return self._cipher


class UsersService:
    """Staff, roles, sessions, API keys and merchants."""

    name = "users"
    database = Database()
    signing_keys: SigningKeys = SigningKeyFile()
    totp_cipher: SecretCipher = TotpKey()
    audit = RpcClient("audit")

    # These four see to their own transactions, since a refusal leaves a mark, and keep no answer under an
    # idempotency key, since what they are asked and what they answer are secrets.

    @rpc(None)
    def sign_in(self, passport: Passport, *, username: str, password: str, otp: str | None = None) -> TokenPairView:
        return sessions.sign_in(
            self.database.transaction,
            self.signing_keys,
            self.totp_cipher,
            passport,
            username=username,
            password=password,
            otp=otp,
        )

    @rpc(None)
    def refresh_session(self, passport: Passport, *, refresh_token: str) -> TokenPairView:
        return sessions.refresh_session(self.database.transaction, self.signing_keys, refresh_token=refresh_token)

    @rpc(None)
    def change_password(self, passport: Passport, *, current_password: str, new_password: str) -> None:
        sessions.change_password(
            self.database.transaction, passport, current_password=current_password, new_password=new_password
        )

    @rpc(None)
    def remove_totp(self, passport: Passport, *, password: str) -> None:
        sessions.remove_totp(self.database.transaction, passport, password=password)

    @command(None, stores_answer=False)
    def begin_totp(self, session: Any, passport: Passport) -> TotpEnrolmentView:
        return totp.begin_totp(session, passport, self.totp_cipher)

    @command(None)
    def confirm_totp(self, session: Any, passport: Passport, *, otp: str) -> None:
        totp.confirm_totp(session, passport, self.totp_cipher, otp=otp)

    @command(None)
    def end_session(self, session: Any, passport: Passport, *, everywhere: bool = False) -> None:
        sessions.end_session(session, passport, everywhere=everywhere)

    @query(None)
    def introspect_session(self, session: Any, passport: Passport, *, session_id: str) -> Introspection:
        return queries.introspect_session(session, session_id=session_id)

    @query(None)
    def introspect_api_key(self, session: Any, passport: Passport, *, key_id: str, secret_hash: str) -> Introspection:
        return queries.introspect_api_key(session, key_id=key_id, secret_hash=secret_hash)

    @rpc(None, is_repeatable=True)
    def get_signing_keys(self, passport: Passport) -> SigningKeysView:
        return self.signing_keys.public_view()

    @command("users:admin")
    def announce_signing_key(self, session: Any, passport: Passport, *, key_id: str, reason: str) -> None:
        signing_keys.announce_signing_key(session, self.signing_keys, key_id=key_id, reason=reason)

    @query(None)
    def get_me(self, session: Any, passport: Passport) -> MeView:
        return queries.get_me(session, passport)

    @query("users:read")
    def list_users(
        self, session: Any, passport: Passport, *, limit: int = LIMIT_DEFAULT, cursor: str | None = None, **filters: Any
    ) -> Page:
        return queries.list_users(session, passport, limit=limit, cursor=cursor, **filters)

    @query("users:read")
    def get_user(self, session: Any, passport: Passport, *, user_id: str) -> UserView:
        return queries.get_user(session, passport, user_id=user_id).view()

    @command("users:admin", stores_answer=False)
    def create_user(self, session: Any, passport: Passport, **fields: Any) -> UserWithPasswordView:
        return users.create_user(session, passport, **fields)

    @command("users:admin")
    def update_user(self, session: Any, passport: Passport, *, user_id: str, changes: dict[str, Any]) -> UserView:
        return users.update_user(session, passport, user_id=user_id, changes=changes)

    @command("users:admin")
    def disable_user(self, session: Any, passport: Passport, *, user_id: str, reason: str) -> UserView:
        return users.disable_user(session, passport, user_id=user_id, reason=reason)

    @command("users:admin")
    def enable_user(self, session: Any, passport: Passport, *, user_id: str, reason: str | None = None) -> UserView:
        return users.enable_user(session, passport, user_id=user_id, reason=reason)

    @command("users:admin", stores_answer=False)
    def reset_password(
        self, session: Any, passport: Passport, *, user_id: str, reason: str | None = None
    ) -> UserWithPasswordView:
        return users.reset_password(session, passport, user_id=user_id, reason=reason)

    @command("users:admin")
    def reset_totp(self, session: Any, passport: Passport, *, user_id: str, reason: str) -> UserView:
        return users.reset_totp(session, passport, user_id=user_id, reason=reason)

    @query("users:read")
    def get_user_access(self, session: Any, passport: Passport, *, user_id: str) -> AccessView:
        return queries.get_user_access(session, passport, user_id=user_id)

    # The figures are audit's, and nobody is called inside a transaction: these three see to their own.

    @rpc("users:read", is_repeatable=True)
    def get_least_privilege(self, passport: Passport, *, user_id: str) -> LeastPrivilegeView:
        return least_privilege.get_least_privilege(self.database.run, self._used, passport, user_id=user_id)

    @rpc("users:read", is_repeatable=True)
    def list_least_privilege(
        self, passport: Passport, *, limit: int = LIMIT_DEFAULT, cursor: str | None = None, **filters: Any
    ) -> Page:
        return least_privilege.list_least_privilege(
            self.database.run, self._used, passport, limit=limit, cursor=cursor, **filters
        )

    @rpc("users:admin")
    def shrink_user(self, passport: Passport, *, user_id: str, reason: str) -> Answer:
        return least_privilege.shrink_once(self.database.run, self._used, passport, user_id=user_id, reason=reason)

    def _used(self, user_ids: Sequence[str], from_time: str) -> least_privilege.Used:
        used: least_privilege.Used = self.audit.call(
            "summarize_actions_of_actors",
            passport=service_passport("users", request_id=current_call.get().passport.request_id),
            timeout=AUDIT_SECONDS_MAX,
            actor_ids=list(user_ids),
            from_time=from_time,
        )
        return used

    @query("users:read")
    def list_permission_holders(
        self, session: Any, passport: Passport, *, limit: int = LIMIT_DEFAULT, cursor: str | None = None, **filters: Any
    ) -> Page:
        return queries.list_permission_holders(session, passport, limit=limit, cursor=cursor, **filters)

    @query(None)
    def list_my_sessions(
        self, session: Any, passport: Passport, *, limit: int = LIMIT_DEFAULT, cursor: str | None = None
    ) -> Page:
        return queries.list_my_sessions(session, passport, limit=limit, cursor=cursor)

    @command(None)
    def end_my_session(self, session: Any, passport: Passport, *, session_id: str) -> None:
        sessions.end_my_session(session, passport, session_id=session_id)

    @query("users:admin")
    def list_user_sessions(
        self, session: Any, passport: Passport, *, user_id: str, limit: int = LIMIT_DEFAULT, cursor: str | None = None
    ) -> Page:
        return queries.list_user_sessions(session, passport, user_id=user_id, limit=limit, cursor=cursor)

    @command("users:admin")
    def end_user_session(self, session: Any, passport: Passport, *, user_id: str, session_id: str) -> None:
        users.end_user_session(session, passport, user_id=user_id, session_id=session_id)

    @query("users:read")
    def list_roles(
        self, session: Any, passport: Passport, *, limit: int = LIMIT_DEFAULT, cursor: str | None = None
    ) -> Page:
        return queries.list_roles(session, limit=limit, cursor=cursor)

    @query("users:read")
    def get_role(self, session: Any, passport: Passport, *, name: str) -> RoleView:
        return queries.get_role(session, name=name).view()

    @command("users:admin")
    def create_role(self, session: Any, passport: Passport, **fields: Any) -> RoleView:
        return roles.create_role(session, passport, **fields)

    @command("users:admin")
    def update_role(self, session: Any, passport: Passport, *, name: str, changes: dict[str, Any]) -> RoleView:
        return roles.update_role(session, passport, name=name, changes=changes)

    @command("users:admin")
    def delete_role(self, session: Any, passport: Passport, *, name: str) -> None:
        roles.delete_role(session, passport, name=name)

    @query("merchants:read")
    def list_merchants(
        self, session: Any, passport: Passport, *, limit: int = LIMIT_DEFAULT, cursor: str | None = None, **filters: Any
    ) -> Page:
        return queries.list_merchants(session, passport, limit=limit, cursor=cursor, **filters)

    @query("merchants:read")
    def get_merchant(self, session: Any, passport: Passport, *, merchant_id: str) -> MerchantView:
        return queries.get_merchant(session, passport, merchant_id=merchant_id).view()

    @command("merchants:operate")
    def create_merchant(self, session: Any, passport: Passport, **fields: Any) -> MerchantView:
        return merchants.create_merchant(session, passport, **fields)

    @command("merchants:operate")
    def update_merchant(
        self, session: Any, passport: Passport, *, merchant_id: str, changes: dict[str, str]
    ) -> MerchantView:
        return merchants.update_merchant(session, passport, merchant_id=merchant_id, changes=changes)

    @query("users:admin")
    def list_api_keys(
        self, session: Any, passport: Passport, *, limit: int = LIMIT_DEFAULT, cursor: str | None = None
    ) -> Page:
        return queries.list_api_keys(session, passport, limit=limit, cursor=cursor)

    @command("users:admin", stores_answer=False)
    def create_api_key(self, session: Any, passport: Passport, **fields: Any) -> ApiKeyWithSecretView:
        return api_keys.create_api_key(session, passport, **fields)

    @command("users:admin")
    def revoke_api_key(self, session: Any, passport: Passport, *, key_id: str) -> None:
        api_keys.revoke_api_key(session, passport, key_id=key_id)

    @every(seconds=DUE_GRANTS_SECONDS)
    def end_due_grants(self) -> None:
        self.database.run(grants.end_due_grants)

    @every(seconds=HOUSEKEEPING_SECONDS)
    def forget_old(self) -> None:
        self.database.run(sessions.forget_old)
