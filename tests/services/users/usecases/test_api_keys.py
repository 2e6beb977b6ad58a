"""What is done to API keys."""

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users import queries
from services.users.models import ApiKey
from services.users.usecases import api_keys, merchants, roles
from shared.contracts.users import (
    ApiKeyNotFound,
    ApiKeyWithSecretView,
    GrantExceedsOwn,
    Introspection,
    RoleInUse,
    split_api_key,
)
from shared.errors import InvalidRequest
from shared.passport import Passport
from shared.times import rfc3339, utc_now
from tests.services.users.conftest import events, make_user, passport_of


@pytest.fixture
def aurora_id(session: Session, as_root: Passport) -> str:
    return merchants.create_merchant(session, as_root, code="AURORA", name="Aurora")["id"]


def state(session: Session, bearer_token: str) -> Introspection:
    key = split_api_key(bearer_token)
    assert key is not None
    return queries.introspect_api_key(session, key_id=key[0], secret_hash=key[1])


@pytest.fixture
def key(session: Session, as_root: Passport, aurora_id: str) -> ApiKeyWithSecretView:
    return api_keys.create_api_key(session, as_root, name="importer", roles=["operator"], merchants=[aurora_id])


def test_key_stands_for_its_roles_and_merchants(session: Session, key: ApiKeyWithSecretView, aurora_id: str) -> None:
    held = state(session, key["secret"])
    assert held["active"]
    assert (held["actor_id"], held["actor_name"], held["merchants"]) == (key["id"], "importer", [aurora_id])
    assert (held["permissions"]["ledger"], held["permissions"]["users"]) == ("operate", "read")


def test_secret_is_nowhere_but_in_the_answer(session: Session, as_root: Passport, key: ApiKeyWithSecretView) -> None:
    secret = key["secret"].split("_")[-1]
    assert secret not in str(events(session))
    assert "secret" not in str(queries.list_api_keys(session, as_root, limit=50))
    stored = session.scalars(sa.select(ApiKey.secret_hash)).one()
    assert stored == hashlib.sha256(key["secret"][len("chk_") + 27 :].encode()).hexdigest()


@pytest.mark.parametrize(
    "damage", [lambda s: s[:-1] + ("A" if s[-1] != "A" else "B"), lambda s: s[:4] + "0" * 26 + s[30:]]
)
def test_another_secret_or_another_id_is_not_active(
    session: Session, key: ApiKeyWithSecretView, damage: object
) -> None:
    assert callable(damage)
    assert state(session, damage(key["secret"])) == {"active": False}


@pytest.mark.parametrize("token", ["", "chk_", "chk_short_x", "eyJhbGciOi.J9.x", "chr_" + "a" * 43])
def test_other_tokens_are_no_api_keys(token: str) -> None:
    assert split_api_key(token) is None


def test_revoked_key_ends_and_revoking_twice_tells_once(
    session: Session, as_root: Passport, key: ApiKeyWithSecretView
) -> None:
    for _ in range(2):
        api_keys.revoke_api_key(session, as_root, key_id=key["id"])
    session.flush()
    assert state(session, key["secret"]) == {"active": False}
    assert [k["status"] for k in queries.list_api_keys(session, as_root, limit=50)["items"]] == ["revoked"]
    assert len(events(session, "ApiKeyRevoked")) == 1


def test_key_ends_at_its_time(session: Session, as_root: Passport) -> None:
    soon = rfc3339(utc_now() + timedelta(hours=1))
    key = api_keys.create_api_key(session, as_root, name="k", roles=[], merchants="all", expires_at=soon)
    assert (key["status"], key["merchants"]) == ("active", "all")
    assert state(session, key["secret"])["active"]
    session.execute(sa.update(ApiKey).values(expires_at=utc_now() - timedelta(seconds=1)))
    assert state(session, key["secret"]) == {"active": False}


@pytest.mark.parametrize("expires_at", ["2020-01-01T00:00:00Z", "tomorrow"])
def test_key_that_would_end_before_it_begins_is_refused(session: Session, as_root: Passport, expires_at: str) -> None:
    with pytest.raises(InvalidRequest):
        api_keys.create_api_key(session, as_root, name="k", roles=[], merchants=[], expires_at=expires_at)


def test_nobody_makes_a_key_beyond_their_own(session: Session, aurora_id: str) -> None:
    operator = passport_of(make_user(session, "op", roles=["operator"], merchants=[]))
    for roles_, merchants_ in ((["administrator"], []), (["operator"], "all"), (["operator"], [aurora_id])):
        with pytest.raises(GrantExceedsOwn):
            api_keys.create_api_key(session, operator, name="k", roles=roles_, merchants=merchants_)


def test_keys_of_foreign_merchants_do_not_exist(session: Session, as_root: Passport, key: ApiKeyWithSecretView) -> None:
    charlie = replace(as_root, merchants=frozenset({"mer_other"}))
    assert queries.list_api_keys(session, charlie, limit=50)["items"] == []
    with pytest.raises(ApiKeyNotFound):
        api_keys.revoke_api_key(session, charlie, key_id=key["id"])


def test_key_is_not_revoked_by_somebody_weaker(
    session: Session, key: ApiKeyWithSecretView, aurora_id: str, as_root: Passport
) -> None:
    weak = replace(as_root, permissions={"users": "admin"}, merchants=frozenset({aurora_id}))
    with pytest.raises(GrantExceedsOwn):
        api_keys.revoke_api_key(session, weak, key_id=key["id"])


def test_role_of_a_key_is_in_use(session: Session, as_root: Passport) -> None:
    roles.create_role(session, as_root, name="teller", permissions={"ledger": "read"})
    api_keys.create_api_key(session, as_root, name="k", roles=["teller"], merchants=[])
    with pytest.raises(RoleInUse):
        roles.delete_role(session, as_root, name="teller")


def test_program_is_told_who_it_is(session: Session, key: ApiKeyWithSecretView, as_root: Passport) -> None:
    passport = replace(as_root, actor_id=key["id"], actor_type="api_key", session_id="")
    me = queries.get_me(session, passport)
    assert (me["type"], me["id"], me["display_name"], me["username"]) == ("api_key", key["id"], "importer", None)
    assert me["permissions"]["ledger"] == "operate"
