"""What the tests of users share: a call under way, signing keys, and people made straight in the database."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from services.users.hashing import hash_password
from services.users.models import Merchant, Role, User
from services.users.sealing import KEY_BYTES, SecretCipher
from services.users.tokens import SigningKeys
from services.users.usecases.merchants import create_merchant
from shared.events import Envelope
from shared.ids import new_id
from shared.kernel_tables import outbox
from shared.passport import Passport
from shared.permissions import highest
from shared.rpc.wire import Call, current_call
from shared.signing_keys import SigningKey

PASSWORD = "violet kettle harbour"
_HASH = hash_password(PASSWORD)


@pytest.fixture(scope="session")
def users_engine(engine_of: Callable[[str], sa.Engine]) -> sa.Engine:
    return engine_of("users")


@pytest.fixture
def session(session_of: Callable[[str], Session]) -> Session:
    """A session whose every change is rolled back."""
    return session_of("users")


Transaction = Callable[[], AbstractContextManager[Session]]


@pytest.fixture
def transaction(users_engine: sa.Engine) -> Iterator[Transaction]:
    """Real transactions, which commit; everything is deleted afterwards."""
    yield sessionmaker(users_engine, expire_on_commit=False).begin
    with users_engine.begin() as connection:
        connection.execute(
            sa.text(
                "truncate users, ending_grants, totp_secrets, recovery_codes, user_roles, user_merchants, merchants,"
                " sessions, refresh_tokens, sign_in_failures, api_keys, api_key_roles, api_key_merchants, outbox,"
                " idempotency_keys"
            )
        )
        connection.execute(sa.text("delete from roles where not is_built_in"))


@pytest.fixture(autouse=True)
def call_under_way(anybody: Passport) -> Iterator[None]:
    call = Call(service="users", method="tested", passport=anybody, arguments={})
    token = current_call.set(call)
    yield
    current_call.reset(token)


@pytest.fixture(scope="session")
def keys() -> SigningKeys:
    key = SigningKey.new()
    return SigningKeys(lambda: [key])


@pytest.fixture(scope="session")
def cipher() -> SecretCipher:
    return SecretCipher(key=secrets.token_bytes(KEY_BYTES), key_id="1")


@pytest.fixture
def anybody() -> Passport:
    """Somebody who is not signed in, as the gateway shows them."""
    return Passport(
        actor_id="anonymous",
        actor_name="anonymous",
        actor_type="anonymous",
        permissions={},
        merchants=frozenset(),
        ip="203.0.113.7",
    )


@pytest.fixture
def root(session: Session) -> User:
    """The administrator of everything."""
    return make_user(session, "root", roles=["administrator"])


@pytest.fixture
def as_root(root: User) -> Passport:
    return passport_of(root)


@pytest.fixture
def aurora(session: Session, as_root: Passport) -> Merchant:
    return session.get_one(Merchant, create_merchant(session, as_root, code="AURORA", name="Aurora")["id"])


@pytest.fixture
def borealis(session: Session, as_root: Passport) -> Merchant:
    return session.get_one(Merchant, create_merchant(session, as_root, code="BOREALIS", name="Borealis")["id"])


def make_user(
    session: Session,
    username: str,
    *,
    roles: list[str] | None = None,
    merchants: list[Any] | None = None,
    password_hash: str = _HASH,
    status: str = "active",
) -> User:
    """Add a user with PASSWORD; without `merchants` one who sees all."""
    user = User(
        id=new_id("usr"),
        username=username,
        username_key=username.casefold(),
        display_name=username.title(),
        email=None,
        status=status,
        password_hash=password_hash,
        must_change_password=False,
        sees_all_merchants=merchants is None,
        roles=[session.get_one(Role, name) for name in roles or []],
        merchants=merchants or [],
    )
    session.add(user)
    session.flush()
    session.refresh(user)
    return user


def passport_of(user: User, *, session_id: str = "ses_tested", ip: str = "203.0.113.7") -> Passport:
    """Return the passport that the gateway would sign for a user."""
    return Passport(
        actor_id=user.id,
        actor_name=user.username,
        actor_type="user",
        permissions=highest([r.permissions for r in user.roles]),
        merchants=None if user.sees_all_merchants else frozenset(m.id for m in user.merchants),
        session_id=session_id,
        ip=ip,
    )


def events(session: Session, name: str | None = None) -> list[Envelope]:
    """Return the events in the outbox, oldest first, of one name if given."""
    rows = session.scalars(sa.select(outbox.c.envelope).order_by(outbox.c.id))
    envelopes: list[Envelope] = [orjson.loads(row) for row in rows]
    return [e for e in envelopes if name in (None, e["event"])]
