"""The tables of users. Passwords, tokens, keys and codes stand in them only as hashes, TOTP secrets only sealed."""

from datetime import datetime, timedelta

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    UniqueConstraint,
    exists,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from services.users.domain.grants import Grant, grant_of_roles, merchant_list
from shared.contracts.users import ApiKeyView, GrantView, Merchants, MerchantView, RoleView, SessionView, UserView
from shared.times import rfc3339, utc_now


class Base(DeclarativeBase):
    """The tables of this service."""

    type_annotation_map = {datetime: TIMESTAMP(timezone=True), dict[str, str]: JSONB, bytes: LargeBinary}


class Merchant(Base):
    """A merchant. `version` orders its changes for those who keep a copy."""

    __tablename__ = "merchants"
    __table_args__ = (
        Index("uq_merchants_code", text("lower(code)"), unique=True),
        CheckConstraint("status in ('active', 'disabled')", name="ck_merchants_status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str]
    name: Mapped[str]
    status: Mapped[str]
    version: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    def view(self) -> MerchantView:
        """Return the merchant as the contract shows it."""
        return {
            "id": self.id,
            "code": self.code,
            "name": self.name,
            "status": self.status,
            "version": self.version,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


class Role(Base):
    """A named set of permissions."""

    __tablename__ = "roles"
    __table_args__ = (Index("uq_roles_name", text("lower(name)"), unique=True),)

    name: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str]
    permissions: Mapped[dict[str, str]]
    is_built_in: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    def view(self) -> RoleView:
        """Return the role as the contract shows it."""
        return {
            "name": self.name,
            "description": self.description,
            "permissions": self.permissions,
            "is_built_in": self.is_built_in,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


user_roles = Table(
    "user_roles",
    Base.metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("role_name", ForeignKey("roles.name"), primary_key=True, index=True),
)
user_merchants = Table(
    "user_merchants",
    Base.metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), primary_key=True, index=True),
)
api_key_roles = Table(
    "api_key_roles",
    Base.metadata,
    Column("api_key_id", ForeignKey("api_keys.id"), primary_key=True),
    Column("role_name", ForeignKey("roles.name"), primary_key=True, index=True),
)
api_key_merchants = Table(
    "api_key_merchants",
    Base.metadata,
    Column("api_key_id", ForeignKey("api_keys.id"), primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), primary_key=True),
)


class TotpSecret(Base):
    """The sealed secret of a user's second factor, in force once it is confirmed. `last_step` is the last one used."""

    __tablename__ = "totp_secrets"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key_id: Mapped[str]
    sealed: Mapped[bytes]
    last_step: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    confirmed_at: Mapped[datetime | None]


class RecoveryCode(Base):
    """A recovery code that has not been used, by the SHA-256 of it; using one deletes it."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[str] = mapped_column(ForeignKey("totp_secrets.user_id", ondelete="CASCADE"), primary_key=True)
    code_hash: Mapped[bytes] = mapped_column(primary_key=True)


class EndingGrant(Base):
    """A role or a merchant that a user holds until a time."""

    __tablename__ = "ending_grants"
    __table_args__ = (
        CheckConstraint("num_nonnulls(role_name, merchant_id) = 1", name="ck_ending_grants_one"),
        UniqueConstraint("user_id", "role_name", name="uq_ending_grants_role"),
        UniqueConstraint("user_id", "merchant_id", name="uq_ending_grants_merchant"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    role_name: Mapped[str | None] = mapped_column(ForeignKey("roles.name"), index=True)
    merchant_id: Mapped[str | None] = mapped_column(ForeignKey("merchants.id"))
    ends_at: Mapped[datetime] = mapped_column(index=True)
    granted_by: Mapped[str]
    granted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    role: Mapped[Role | None] = relationship(lazy="joined")

    def view(self) -> GrantView:
        """Return the grant as the contract shows it."""
        return {
            "role": self.role_name,
            "merchant_id": self.merchant_id,
            "ends_at": rfc3339(self.ends_at),
            "granted_by": self.granted_by,
            "granted_at": rfc3339(self.granted_at),
        }


class User(Base):
    """A member of staff. `username_key` is the form in which names are unique."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("username_key", name="uq_users_username"),
        CheckConstraint("status in ('active', 'disabled')", name="ck_users_status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    username: Mapped[str]
    username_key: Mapped[str]
    display_name: Mapped[str]
    email: Mapped[str | None]
    status: Mapped[str]
    password_hash: Mapped[str]
    must_change_password: Mapped[bool]
    password_expires_at: Mapped[datetime | None]
    sees_all_merchants: Mapped[bool]
    last_signed_in_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    roles: Mapped[list[Role]] = relationship(secondary=user_roles, lazy="selectin", order_by=Role.name)
    merchants: Mapped[list[Merchant]] = relationship(secondary=user_merchants, lazy="selectin", order_by=Merchant.id)
    ending_grants: Mapped[list[EndingGrant]] = relationship(
        lazy="selectin", order_by=EndingGrant.id, cascade="all, delete-orphan"
    )
    has_totp: Mapped[bool] = column_property(
        exists().where(TotpSecret.user_id == id, TotpSecret.confirmed_at.is_not(None))
    )

    def grants_until(self, instant: datetime) -> list[EndingGrant]:
        """Return the grants that end, but not before an instant."""
        return [grant for grant in self.ending_grants if grant.ends_at > instant]

    def grant(self, *, until: datetime | None = None) -> Grant:
        """Return what the user holds now, or holds on to until an instant, which then counts as in it."""
        instant = utc_now() if until is None else until - timedelta.resolution
        return self._grant(self.grants_until(instant))

    def lasting_grant(self) -> Grant:
        """Return what the user holds without an end."""
        return self._grant([])

    def _grant(self, ending: list[EndingGrant]) -> Grant:
        roles = [*self.roles, *(grant.role for grant in ending if grant.role)]
        merchants = {m.id for m in self.merchants} | {grant.merchant_id for grant in ending if grant.merchant_id}
        return grant_of_roles(
            [r.permissions for r in roles], merchants=None if self.sees_all_merchants else frozenset(merchants)
        )

    def roles_now(self) -> list[Role]:
        """Return the roles that the user holds at this instant, by name."""
        ending = [grant.role for grant in self.grants_until(utc_now()) if grant.role]
        return sorted({role.name: role for role in (*self.roles, *ending)}.values(), key=lambda role: role.name)

    def merchants_now(self) -> Merchants:
        """Return the merchants that the user sees at this instant."""
        merchant_ids = self.grant().merchants
        return merchant_list(sees_all=merchant_ids is None, merchant_ids=merchant_ids or ())

    def view(self) -> UserView:
        """Return the user as the contract shows it."""
        return {
            "id": self.id,
            "username": self.username,
            "display_name": self.display_name,
            "email": self.email,
            "roles": [r.name for r in self.roles],
            "merchants": merchant_list(sees_all=self.sees_all_merchants, merchant_ids=[m.id for m in self.merchants]),
            "grants": [grant.view() for grant in self.grants_until(utc_now())],
            "status": self.status,
            "must_change_password": self.must_change_password,
            "password_expires_at": rfc3339(self.password_expires_at) if self.password_expires_at else None,
            "has_totp": self.has_totp,
            "last_signed_in_at": rfc3339(self.last_signed_in_at) if self.last_signed_in_at else None,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


class ApiKey(Base):
    """A program's key. Its secret has 256 random bits, so a plain SHA-256 keeps it."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    secret_hash: Mapped[str]
    sees_all_merchants: Mapped[bool]
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    revoked_at: Mapped[datetime | None]
    roles: Mapped[list[Role]] = relationship(secondary=api_key_roles, lazy="selectin", order_by=Role.name)
    merchants: Mapped[list[Merchant]] = relationship(secondary=api_key_merchants, lazy="selectin", order_by=Merchant.id)

    def grant(self) -> Grant:
        """Return what the key holds."""
        merchants = None if self.sees_all_merchants else frozenset(m.id for m in self.merchants)
        return grant_of_roles([r.permissions for r in self.roles], merchants=merchants)

    def status(self, now: datetime) -> str:
        """Return active, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def view(self, now: datetime) -> ApiKeyView:
        """Return the key as the contract shows it, without its secret."""
        return {
            "id": self.id,
            "name": self.name,
            "roles": [r.name for r in self.roles],
            "merchants": merchant_list(sees_all=self.sees_all_merchants, merchant_ids=[m.id for m in self.merchants]),
            "status": self.status(now),
            "expires_at": rfc3339(self.expires_at) if self.expires_at else None,
            "created_at": rfc3339(self.created_at),
            "created_by": self.created_by,
            "revoked_at": rfc3339(self.revoked_at) if self.revoked_at else None,
        }


class UserSession(Base):
    """A sign-in and all refresh tokens that came of it: the family that ends together."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_open", "user_id", postgresql_where=text("ended_at is null")),
        Index("ix_sessions_address", "user_id", "address", "created_at"),
        Index("ix_sessions_expires_at", "expires_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    address: Mapped[str]
    ip: Mapped[str]
    user_agent: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ended_why: Mapped[str | None]
    user: Mapped[User] = relationship(lazy="raise")

    def view(self, *, last_used_at: datetime, is_current: bool) -> SessionView:
        """Return the session as the contract shows it."""
        return {
            "id": self.id,
            "ip": self.ip,
            "user_agent": self.user_agent,
            "created_at": rfc3339(self.created_at),
            "last_used_at": rfc3339(last_used_at),
            "expires_at": rfc3339(self.expires_at),
            "is_current": is_current,
        }


class RefreshToken(Base):
    """One refresh token of a session, by the SHA-256 of it. A spent one stays, so that its reuse is seen."""

    __tablename__ = "refresh_tokens"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    spent_at: Mapped[datetime | None]


class SignInFailures(Base):
    """Failed sign-ins since the last quiet hour, of a name (known or not) from an address, or from everywhere."""

    __tablename__ = "sign_in_failures"

    username_key: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    last_failed_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    locked_until: Mapped[datetime | None]
