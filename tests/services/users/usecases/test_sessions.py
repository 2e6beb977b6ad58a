"""Signing in, refreshing, signing out and changing the password, against a real PostgreSQL with real commits."""

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import Any

import argon2
import jwt
import pytest
import sqlalchemy as sa
from jwt.algorithms import OKPAlgorithm

from services.users.domain.lockouts import (
    BY_ADDRESS,
    BY_USERNAME,
    BY_USERNAME_AND_ADDRESS,
    CODES,
    EVERY_ADDRESS,
    EVERY_NAME,
    address_of,
    name_key,
)
from services.users.hashing import AT_ONCE_MAX
from services.users.models import RefreshToken, SignInFailures, TotpSecret, User, UserSession
from services.users.queries import introspect_session, list_my_sessions, list_user_sessions
from services.users.sealing import SecretCipher
from services.users.tokens import SigningKeys
from services.users.usecases import sessions, users
from shared.contracts.users import (
    JWT_ALGORITHM,
    JWT_AUDIENCE,
    JWT_CLAIMS,
    JWT_ISSUER,
    GrantExceedsOwn,
    InvalidCredentials,
    InvalidRefreshToken,
    SessionNotFound,
    SignInBusy,
    TemporaryPasswordExpired,
    TokenPairView,
    TooManySignIns,
    UserNotFound,
    UserSessionRequired,
    WeakPassword,
    WrongPassword,
)
from shared.passport import Passport
from shared.times import utc_now
from tests.services.users.conftest import PASSWORD, Transaction, events, make_user, passport_of

NEW_PASSWORD = "quiet river under stones"


@pytest.fixture
def alice(transaction: Transaction) -> User:
    with transaction() as session:
        return make_user(session, "alice", roles=["administrator"])


@pytest.fixture
def sign_in(
    transaction: Transaction, keys: SigningKeys, cipher: SecretCipher, anybody: Passport
) -> Callable[..., TokenPairView]:
    def sign_in(username: str = "alice", password: str = PASSWORD, ip: str = "203.0.113.7") -> TokenPairView:
        passport = replace(anybody, ip=ip)
        return sessions.sign_in(transaction, keys, cipher, passport, username=username, password=password)

    return sign_in


@pytest.fixture
def refresh(transaction: Transaction, keys: SigningKeys) -> Callable[[str], TokenPairView]:
    return lambda token: sessions.refresh_session(transaction, keys, refresh_token=token)


def claims_of(pair: TokenPairView) -> dict[str, Any]:
    return dict(jwt.decode(pair["access_token"], options={"verify_signature": False}))


def is_active(transaction: Transaction, pair: TokenPairView) -> bool:
    with transaction() as session:
        return introspect_session(session, session_id=claims_of(pair)["sid"])["active"]


def fail(sign_in: Callable[..., TokenPairView], times: int, **arguments: Any) -> None:
    for _ in range(times):
        with pytest.raises(InvalidCredentials):
            sign_in(password="wrong", **arguments)


def forgive_time(transaction: Transaction) -> None:
    """Let every lock end, as waiting would."""
    with transaction() as session:
        session.execute(sa.update(SignInFailures).values(locked_until=utc_now()))


@pytest.mark.usefixtures("alice")
class TestSignIn:
    def test_right_password_begins_a_session(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction, keys: SigningKeys, alice: User
    ) -> None:
        pair = sign_in()
        assert (pair["token_type"], pair["must_change_password"]) == ("Bearer", False)
        assert pair["expires_in"] <= 600
        key = keys.public_view()["keys"][0]
        complete = jwt.decode_complete(
            pair["access_token"],
            OKPAlgorithm.from_jwk(key),
            algorithms=[JWT_ALGORITHM],
            audience=JWT_AUDIENCE,
            issuer=JWT_ISSUER,
            options={"require": list(JWT_CLAIMS)},
        )
        assert complete["header"] == {"alg": "EdDSA", "typ": "at+jwt", "kid": key["kid"]}
        assert complete["payload"]["sub"] == alice.id
        assert complete["payload"]["exp"] - complete["payload"]["iat"] == pair["expires_in"]
        with transaction() as session:
            state = introspect_session(session, session_id=complete["payload"]["sid"])
            assert (state["active"], state["actor_id"], state["actor_name"]) == (True, alice.id, "alice")
            assert (state["permissions"]["users"], state["merchants"]) == ("admin", "all")

    def test_temporary_password_ends_at_its_time(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction, alice: User
    ) -> None:
        """Also for who has signed in with it in time: it can be neither used nor changed after that."""

        def expire(**ago: int) -> None:
            with transaction() as session:
                session.execute(
                    sa.update(User).values(must_change_password=True, password_expires_at=utc_now() - timedelta(**ago))
                )

        expire(minutes=-1)
        as_alice = passport_of(alice, session_id=claims_of(sign_in())["sid"])
        expire(seconds=1)
        with pytest.raises(TemporaryPasswordExpired):
            sign_in()
        with pytest.raises(InvalidCredentials):
            sign_in(password="wrong")  # only who knows it is told
        with pytest.raises(TemporaryPasswordExpired):
            sessions.change_password(transaction, as_alice, current_password=PASSWORD, new_password=NEW_PASSWORD)
        expire(minutes=-1)
        sessions.change_password(transaction, as_alice, current_password=PASSWORD, new_password=NEW_PASSWORD)
        with transaction() as session:
            assert session.get_one(User, alice.id).view()["password_expires_at"] is None
        assert not sign_in(password=NEW_PASSWORD)["must_change_password"]

    def test_letter_case_of_the_name_does_not_matter(self, sign_in: Callable[..., TokenPairView]) -> None:
        assert sign_in(" ALICE ")["access_token"]

    def test_event_names_who_signed_in_as_the_actor(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction, alice: User
    ) -> None:
        sign_in()
        with transaction() as session:
            [event] = events(session)
        assert event["event"] == "SignedIn"
        assert event["actor"] == {"id": alice.id, "name": "alice", "type": "user"}

    def test_wrong_name_wrong_password_and_disabled_user_look_alike(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        with transaction() as session:
            make_user(session, "zoe", status="disabled")
        refusals = []
        for username, password in [("nobody", PASSWORD), ("alice", "wrong"), ("zoe", PASSWORD)]:
            with pytest.raises(InvalidCredentials) as caught:
                sign_in(username, password)
            refusals.append(caught.value.to_wire())
        assert refusals[0] == refusals[1] == refusals[2]

    def test_wrong_name_takes_as_long_as_a_wrong_password(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        with transaction() as session:
            make_user(session, "zoe", status="disabled")
        cases = {"nobody": "wrong", "alice": "wrong", "zoe": PASSWORD}
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(BY_USERNAME_AND_ADDRESS.failures_free - 1):
            for username, password in cases.items():
                before = time.perf_counter()
                with pytest.raises(InvalidCredentials):
                    sign_in(username, password)
                seconds[username].append(time.perf_counter() - before)
        fastest = [min(s) for s in seconds.values()]  # what the code takes, without what the machine adds
        assert max(fastest) < 2 * min(fastest), seconds

    def test_wrong_name_wrong_password_and_disabled_user_cost_the_same_statements(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction, users_engine: sa.Engine
    ) -> None:
        with transaction() as session:
            make_user(session, "zoe", roles=["auditor"], status="disabled")
            tom = make_user(session, "tom")
            session.add(TotpSecret(user_id=tom.id, key_id="1", sealed=b"x", confirmed_at=utc_now()))
        statements: list[str] = []

        def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement.split("WHERE")[0])

        seen = []
        for username, password in [("nobody", "wrong"), ("alice", "wrong"), ("zoe", PASSWORD), ("tom", "wrong")]:
            sa.event.listen(users_engine, "before_cursor_execute", note)
            with pytest.raises(InvalidCredentials):
                sign_in(username, password)
            sa.event.remove(users_engine, "before_cursor_execute", note)
            seen.append(statements.copy())
            statements.clear()
        assert len(seen[0]) > 4
        assert seen[0] == seen[1] == seen[2] == seen[3]

    def test_failed_sign_in_is_told_without_repeating_an_unknown_name(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction, alice: User
    ) -> None:
        fail(sign_in, 1, username="a-password-in-the-wrong-field")
        fail(sign_in, 1, username="alice")
        with transaction() as session:
            unknown, known = (e["payload"] for e in events(session, "SignInFailed"))
        assert (unknown["user_id"], unknown["username"]) == (None, None)
        assert (known["user_id"], known["username"]) == (alice.id, "alice")

    def test_nothing_secret_is_written_down(
        self, sign_in: Callable[..., TokenPairView], refresh: Callable[[str], TokenPairView], users_engine: sa.Engine
    ) -> None:
        first = sign_in()
        second = refresh(first["refresh_token"])
        secrets = [PASSWORD, *(p[k] for p in (first, second) for k in ("access_token", "refresh_token"))]  # type: ignore[literal-required]
        with users_engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
            dump = "".join(
                str(row)
                for table in tables
                for row in connection.execute(sa.text(f"select {table}::text from {table}"))
            )
        assert len(dump) > 1000
        assert [s for s in secrets if s in dump] == []

    def test_hash_with_old_parameters_is_renewed(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        old = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
        with transaction() as session:
            make_user(session, "bob", password_hash=old)
        sign_in("bob")
        with transaction() as session:
            fresh = session.scalars(sa.select(User.password_hash).where(User.username == "bob")).one()
        assert fresh != old
        assert sign_in("bob")["access_token"]

    def test_password_that_is_reset_while_it_is_checked_is_refused(
        self, transaction: Transaction, sign_in: Callable[..., TokenPairView], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_fits = sessions.fits

        def fits_and_somebody_resets(password: str, password_hash: str | None) -> bool:
            fits = real_fits(password, password_hash)
            with transaction() as session:
                session.execute(sa.update(User).values(password_hash="another"))
            return fits

        monkeypatch.setattr(sessions, "fits", fits_and_somebody_resets)
        with pytest.raises(InvalidCredentials):
            sign_in()


@pytest.mark.usefixtures("alice")
class TestLockout:
    def test_too_many_failures_lock_and_say_for_how_long(self, sign_in: Callable[..., TokenPairView]) -> None:
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free)
        with pytest.raises(TooManySignIns) as caught:
            sign_in()  # the right password, and still
        assert 1 <= caught.value.extra["retry_after_seconds"] <= BY_USERNAME_AND_ADDRESS.first_lock_seconds + 1

    def test_lock_is_in_the_database_and_ends_by_itself(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free)
        with transaction() as session:
            lock = session.scalars(
                sa.select(SignInFailures).filter_by(username_key="alice", address="203.0.113.7")
            ).one()
            assert lock.failures == BY_USERNAME_AND_ADDRESS.failures_free
        forgive_time(transaction)
        assert sign_in()["access_token"]

    def test_lock_grows(self, sign_in: Callable[..., TokenPairView], transaction: Transaction) -> None:
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free)
        for doubling in range(1, 4):
            forgive_time(transaction)
            fail(sign_in, 1)
            with pytest.raises(TooManySignIns) as caught:
                sign_in()
            expected = BY_USERNAME_AND_ADDRESS.first_lock_seconds * 2**doubling
            assert expected - 2 <= caught.value.extra["retry_after_seconds"] <= expected + 1

    def test_attempts_while_locked_do_not_lengthen_the_lock(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free)
        for _ in range(20):
            with pytest.raises(TooManySignIns):
                sign_in(password="wrong")
        with transaction() as session:
            assert (
                session.scalar(sa.select(sa.func.max(SignInFailures.failures))) == BY_USERNAME_AND_ADDRESS.failures_free
            )

    def test_unknown_name_locks_like_a_known_one(self, sign_in: Callable[..., TokenPairView]) -> None:
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free, username="nobody")
        with pytest.raises(TooManySignIns):
            sign_in("nobody")

    def test_attacker_elsewhere_does_not_lock_the_victim_out(self, sign_in: Callable[..., TokenPairView]) -> None:
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free, ip="198.51.100.1")
        assert sign_in(ip="203.0.113.7")["access_token"]

    def test_right_password_clears_the_count(self, sign_in: Callable[..., TokenPairView]) -> None:
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free - 1)
        sign_in()
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free - 1)

    def test_right_password_of_a_disabled_user_still_counts(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        with transaction() as session:
            make_user(session, "zoe", status="disabled")
        for _ in range(BY_USERNAME_AND_ADDRESS.failures_free):
            with pytest.raises(InvalidCredentials):
                sign_in("zoe")
        with pytest.raises(TooManySignIns):
            sign_in("zoe")

    def test_many_addresses_lock_the_name_except_where_the_user_is_known(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        sign_in(ip="203.0.113.7")
        with transaction() as session:
            session.add(
                SignInFailures(username_key="alice", address=EVERY_ADDRESS, failures=BY_USERNAME.failures_free - 1)
            )
        fail(sign_in, 1, ip="198.51.100.1")
        with pytest.raises(TooManySignIns):
            sign_in(ip="198.51.100.2")
        assert sign_in(ip="203.0.113.7")["access_token"]

    def test_one_address_that_tries_one_password_on_many_names_is_stopped(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        with transaction() as session:
            make_user(session, "zoe")
        sign_in(ip="198.51.100.1")
        names = iter(f"name-{number}" for number in range(1000))
        for name in islice(names, BY_ADDRESS.failures_free):
            fail(sign_in, 1, username=name, ip="198.51.100.1")
        for name in ("zoe", next(names)):  # known names and unknown ones alike
            with pytest.raises(TooManySignIns) as caught:
                sign_in(name, ip="198.51.100.1")
            assert 1 <= caught.value.extra["retry_after_seconds"] <= BY_ADDRESS.lock_seconds_max
        assert sign_in(ip="198.51.100.1")["access_token"]  # whoever works there goes on
        assert sign_in("zoe", ip="198.51.100.2")["access_token"]
        forgive_time(transaction)
        assert sign_in("zoe", ip="198.51.100.1")["access_token"]

    def test_many_failures_of_one_name_are_no_spraying(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free)
        with transaction() as session:
            assert session.get_one(SignInFailures, (EVERY_NAME, "203.0.113.7")).failures == 1

    def test_no_name_can_be_typed_that_is_the_counter_of_an_address(self) -> None:
        assert name_key(EVERY_NAME) != EVERY_NAME
        assert address_of(CODES) != CODES

    def test_victim_of_a_long_attack_gets_in_from_where_they_are_known_and_elsewhere_within_minutes(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        """However many failures there were: the lock is never longer than its most, and is not on known addresses."""
        sign_in(ip="203.0.113.7")
        with transaction() as session:
            session.add(SignInFailures(username_key="alice", address=EVERY_ADDRESS, failures=100_000))
        fail(sign_in, 1, ip="198.51.100.1")
        assert sign_in(ip="203.0.113.7")["access_token"]
        with pytest.raises(TooManySignIns) as caught:
            sign_in(ip="198.51.100.2")
        assert caught.value.extra["retry_after_seconds"] <= BY_USERNAME.lock_seconds_max + 1
        forgive_time(transaction)
        assert sign_in(ip="198.51.100.2")["access_token"]

    def test_count_begins_again_after_a_quiet_hour(
        self, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free - 1)
        with transaction() as session:
            session.execute(sa.text("update sign_in_failures set last_failed_at = now() - interval '61 minutes'"))
        fail(sign_in, BY_USERNAME_AND_ADDRESS.failures_free - 1)

    def test_guesses_sent_all_at_once_do_not_slip_past_the_lock(
        self, transaction: Transaction, keys: SigningKeys, cipher: SecretCipher, anybody: Passport, call_under_way: None
    ) -> None:
        """Forty guesses in parallel, the right one last: the lock of the first ones stops the others."""
        outcomes: list[str] = []

        def guess(password: str) -> None:
            try:
                sessions.sign_in(transaction, keys, cipher, anybody, username="alice", password=password)
                outcomes.append("in")
            except (InvalidCredentials, TooManySignIns, SignInBusy) as error:
                outcomes.append(error.code)

        threads = [threading.Thread(target=copy_context().run, args=(guess, "wrong")) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 40
        assert outcomes.count("invalid_credentials") <= BY_USERNAME_AND_ADDRESS.failures_free + AT_ONCE_MAX


@pytest.mark.usefixtures("alice")
class TestRefresh:
    def test_refresh_gives_a_new_pair_of_the_same_session(
        self, sign_in: Callable[..., TokenPairView], refresh: Callable[[str], TokenPairView]
    ) -> None:
        first = sign_in()
        second = refresh(first["refresh_token"])
        third = refresh(second["refresh_token"])
        assert len({p["refresh_token"] for p in (first, second, third)}) == 3
        assert len({claims_of(p)["jti"] for p in (first, second, third)}) == 3
        assert claims_of(first)["sid"] == claims_of(third)["sid"]

    def test_spent_token_ends_the_whole_family(
        self,
        sign_in: Callable[..., TokenPairView],
        refresh: Callable[[str], TokenPairView],
        transaction: Transaction,
    ) -> None:
        first, other = sign_in(), sign_in()
        second = refresh(first["refresh_token"])
        with pytest.raises(InvalidRefreshToken):
            refresh(first["refresh_token"])
        assert not is_active(transaction, second)
        with pytest.raises(InvalidRefreshToken):
            refresh(second["refresh_token"])
        assert is_active(transaction, other)  # another sign-in is another family
        with transaction() as session:
            names = [e["event"] for e in events(session)]
        assert names == ["SignedIn", "SignedIn", "RefreshTokenReused", "SessionEnded"]

    def test_token_shown_twice_at_once_wins_once_and_then_counts_as_reused(
        self,
        sign_in: Callable[..., TokenPairView],
        refresh: Callable[[str], TokenPairView],
        transaction: Transaction,
    ) -> None:
        for _ in range(5):
            pair = sign_in()
            outcomes: list[str] = []
            barrier = threading.Barrier(8)

            def show(pair: TokenPairView, outcomes: list[str], barrier: threading.Barrier) -> None:
                barrier.wait()
                try:
                    refresh(pair["refresh_token"])
                    outcomes.append("won")
                except InvalidRefreshToken:
                    outcomes.append("refused")

            threads = [
                threading.Thread(target=copy_context().run, args=(show, pair, outcomes, barrier)) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(outcomes) == ["refused"] * 7 + ["won"]
            assert not is_active(transaction, pair)
        with transaction() as session:
            assert len(events(session, "RefreshTokenReused")) == 5

    def test_unknown_and_expired_tokens_are_refused_alike(
        self,
        sign_in: Callable[..., TokenPairView],
        refresh: Callable[[str], TokenPairView],
        transaction: Transaction,
    ) -> None:
        pair = sign_in()
        with transaction() as session:
            session.execute(sa.update(RefreshToken).values(expires_at=utc_now()))
        for token in (pair["refresh_token"], "chr_unknown", "", pair["access_token"]):
            with pytest.raises(InvalidRefreshToken):
                refresh(token)
        assert is_active(transaction, pair)

    def test_session_does_not_outlive_its_days_by_refreshing(
        self,
        sign_in: Callable[..., TokenPairView],
        refresh: Callable[[str], TokenPairView],
        transaction: Transaction,
    ) -> None:
        pair = sign_in()
        with transaction() as session:
            session.execute(sa.update(UserSession).values(expires_at=utc_now()))
        with pytest.raises(InvalidRefreshToken):
            refresh(pair["refresh_token"])
        assert not is_active(transaction, pair)


class TestEnd:
    def passport(self, user: User, pair: TokenPairView) -> Passport:
        return passport_of(user, session_id=claims_of(pair)["sid"])

    def test_sign_out_ends_this_session_only(
        self,
        alice: User,
        sign_in: Callable[..., TokenPairView],
        refresh: Callable[[str], TokenPairView],
        transaction: Transaction,
    ) -> None:
        here, there = sign_in(), sign_in()
        with transaction() as session:
            sessions.end_session(session, self.passport(alice, here), everywhere=False)
        assert (is_active(transaction, here), is_active(transaction, there)) == (False, True)
        with pytest.raises(InvalidRefreshToken):
            refresh(here["refresh_token"])

    def test_sign_out_everywhere_ends_all_of_the_users_sessions_and_nobody_elses(
        self, alice: User, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        with transaction() as session:
            make_user(session, "bob")
        here, there, bobs = sign_in(), sign_in(), sign_in("bob")
        with transaction() as session:
            sessions.end_session(session, self.passport(alice, here), everywhere=True)
        states = [is_active(transaction, pair) for pair in (here, there, bobs)]
        assert states == [False, False, True]

    def test_api_key_has_no_session_to_end(self, alice: User, transaction: Transaction) -> None:
        passport = replace(passport_of(alice), actor_type="api_key", session_id="")
        with transaction() as session, pytest.raises(UserSessionRequired):
            sessions.end_session(session, passport, everywhere=False)


class TestOpenSessions:
    def passport(self, user: User, pair: TokenPairView) -> Passport:
        return passport_of(user, session_id=claims_of(pair)["sid"])

    def listed(self, transaction: Transaction, passport: Passport) -> list[str]:
        with transaction() as session:
            return [item["id"] for item in list_my_sessions(session, passport, limit=50)["items"]]

    def test_own_sessions_are_listed_newest_first_and_nobody_elses(
        self, alice: User, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        with transaction() as session:
            make_user(session, "bob")
        here, there, _bobs = sign_in(), sign_in(ip="198.51.100.4"), sign_in("bob")
        with transaction() as session:
            page = list_my_sessions(session, self.passport(alice, here), limit=50)
        assert [(s["id"], s["ip"], s["is_current"]) for s in page["items"]] == [
            (claims_of(there)["sid"], "198.51.100.4", False),
            (claims_of(here)["sid"], "203.0.113.7", True),
        ]

    def test_pages_hold_each_session_once(
        self, alice: User, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        pairs = [sign_in() for _ in range(3)]
        passport, cursor, seen = self.passport(alice, pairs[0]), None, []
        for _ in range(3):
            with transaction() as session:
                page = list_my_sessions(session, passport, limit=1, cursor=cursor)
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert (seen, cursor) == ([claims_of(pair)["sid"] for pair in reversed(pairs)], None)

    def test_refresh_is_seen_as_the_last_use(
        self,
        alice: User,
        sign_in: Callable[..., TokenPairView],
        refresh: Callable[[str], TokenPairView],
        transaction: Transaction,
    ) -> None:
        pair = sign_in()
        refresh(pair["refresh_token"])
        with transaction() as session:
            (item,) = list_my_sessions(session, self.passport(alice, pair), limit=50)["items"]
        assert item["last_used_at"] > item["created_at"]

    @pytest.mark.parametrize("expired", [UserSession, RefreshToken])
    def test_session_that_can_no_longer_be_used_is_not_listed(
        self,
        alice: User,
        sign_in: Callable[..., TokenPairView],
        transaction: Transaction,
        expired: type[UserSession] | type[RefreshToken],
    ) -> None:
        over, here = sign_in(), sign_in()
        column = UserSession.id if expired is UserSession else RefreshToken.session_id
        with transaction() as session:
            session.execute(sa.update(expired).where(column == claims_of(over)["sid"]).values(expires_at=utc_now()))
        assert self.listed(transaction, self.passport(alice, here)) == [claims_of(here)["sid"]]

    def test_own_session_ends_alone_and_at_once(
        self,
        alice: User,
        sign_in: Callable[..., TokenPairView],
        refresh: Callable[[str], TokenPairView],
        transaction: Transaction,
    ) -> None:
        here, there = sign_in(), sign_in()
        passport, there_id = self.passport(alice, here), claims_of(there)["sid"]
        with transaction() as session:
            sessions.end_my_session(session, passport, session_id=there_id)
        assert (is_active(transaction, here), is_active(transaction, there)) == (True, False)
        assert self.listed(transaction, passport) == [claims_of(here)["sid"]]
        with pytest.raises(InvalidRefreshToken):
            refresh(there["refresh_token"])
        with transaction() as session:
            (told,) = events(session, "SessionEnded")
            assert (told["resource_id"], told["payload"]["why"]) == (there_id, "signed_out")
            with pytest.raises(SessionNotFound):
                sessions.end_my_session(session, passport, session_id=there_id)
            assert len(events(session, "SessionEnded")) == 1

    def test_session_of_somebody_else_is_not_ones_own_to_end(
        self, alice: User, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        with transaction() as session:
            bob = make_user(session, "bob")
        here, bobs = sign_in(), sign_in("bob")
        with transaction() as session, pytest.raises(SessionNotFound):
            sessions.end_my_session(session, self.passport(alice, here), session_id=claims_of(bobs)["sid"])
        with transaction() as session, pytest.raises(SessionNotFound):
            users.end_user_session(
                session, self.passport(alice, here), user_id=bob.id, session_id=claims_of(here)["sid"]
            )
        assert is_active(transaction, bobs)
        assert is_active(transaction, here)

    def test_api_key_has_no_sessions(self, alice: User, transaction: Transaction) -> None:
        passport = replace(passport_of(alice), actor_type="api_key", session_id="")
        with transaction() as session, pytest.raises(UserSessionRequired):
            list_my_sessions(session, passport, limit=50)
        with transaction() as session, pytest.raises(UserSessionRequired):
            sessions.end_my_session(session, passport, session_id="ses_any")

    def test_administrator_lists_and_ends_a_session_of_a_user(
        self, alice: User, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        with transaction() as session:
            bob = make_user(session, "bob")
        here, first, second = sign_in(), sign_in("bob"), sign_in("bob")
        passport, first_id = self.passport(alice, here), claims_of(first)["sid"]
        with transaction() as session:
            users.end_user_session(session, passport, user_id=bob.id, session_id=first_id)
            page = list_user_sessions(session, passport, user_id=bob.id, limit=50)
            (told,) = events(session, "SessionEnded")
        assert [(s["id"], s["is_current"]) for s in page["items"]] == [(claims_of(second)["sid"], False)]
        assert (told["payload"]["user_id"], told["payload"]["why"]) == (bob.id, "ended_by_administrator")
        assert (is_active(transaction, first), is_active(transaction, second)) == (False, True)

    def test_sessions_of_a_stranger_or_a_stronger_user_stay(
        self, alice: User, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        pair = sign_in()
        ending = {"user_id": alice.id, "session_id": claims_of(pair)["sid"]}
        weaker = replace(passport_of(alice), actor_id="usr_weaker", permissions={"users": "admin"})
        with transaction() as session, pytest.raises(GrantExceedsOwn):
            users.end_user_session(session, weaker, **ending)
        elsewhere = replace(passport_of(alice), actor_id="usr_elsewhere", merchants=frozenset({"mer_other"}))
        with transaction() as session, pytest.raises(UserNotFound):
            users.end_user_session(session, elsewhere, **ending)
        with transaction() as session, pytest.raises(UserNotFound):
            list_user_sessions(session, elsewhere, user_id=alice.id, limit=50)
        assert is_active(transaction, pair)

    def test_session_ended_twice_at_once_is_told_once(
        self, alice: User, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        here, there = sign_in(), sign_in()
        passport, outcomes = self.passport(alice, here), []

        def end() -> None:
            try:
                with transaction() as session:
                    sessions.end_my_session(session, passport, session_id=claims_of(there)["sid"])
                    time.sleep(0.1)
                outcomes.append("ended")
            except SessionNotFound:
                outcomes.append("not found")

        threads = [threading.Thread(target=copy_context().run, args=(end,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["ended", "not found"]
        with transaction() as session:
            assert len(events(session, "SessionEnded")) == 1


class TestChangePassword:
    def change(self, transaction: Transaction, passport: Passport, current: str, new: str) -> None:
        sessions.change_password(transaction, passport, current_password=current, new_password=new)

    def test_new_password_works_the_old_one_does_not_and_other_sessions_end(
        self, alice: User, sign_in: Callable[..., TokenPairView], transaction: Transaction
    ) -> None:
        with transaction() as session:
            session.execute(sa.update(User).values(must_change_password=True))
        here, there = sign_in(), sign_in()
        assert here["must_change_password"]
        passport = passport_of(alice, session_id=claims_of(here)["sid"])
        self.change(transaction, passport, PASSWORD, NEW_PASSWORD)
        assert (is_active(transaction, here), is_active(transaction, there)) == (True, False)
        fail(sign_in, 1)
        assert not sign_in(password=NEW_PASSWORD)["must_change_password"]
        with transaction() as session:
            assert [e["event"] for e in events(session)].count("PasswordChanged") == 1

    def test_wrong_current_password_counts_like_a_failed_sign_in(self, alice: User, transaction: Transaction) -> None:
        passport = passport_of(alice)
        for _ in range(BY_USERNAME_AND_ADDRESS.failures_free):
            with pytest.raises(WrongPassword):
                self.change(transaction, passport, "wrong", NEW_PASSWORD)
        with pytest.raises(TooManySignIns):
            self.change(transaction, passport, PASSWORD, NEW_PASSWORD)

    @pytest.mark.parametrize("new", ["short", "password1234", PASSWORD])
    def test_weak_or_unchanged_password_is_refused(self, alice: User, transaction: Transaction, new: str) -> None:
        with pytest.raises(WeakPassword):
            self.change(transaction, passport_of(alice), PASSWORD, new)

    def test_api_key_has_no_password(self, alice: User, transaction: Transaction) -> None:
        passport = replace(passport_of(alice), actor_type="api_key", session_id="")
        with pytest.raises(UserSessionRequired):
            self.change(transaction, passport, PASSWORD, NEW_PASSWORD)


@pytest.mark.usefixtures("alice")
def test_what_is_long_over_is_forgotten_and_the_rest_is_kept(
    sign_in: Callable[..., TokenPairView], transaction: Transaction
) -> None:
    old, new = sign_in(), sign_in()
    fail(sign_in, 1)
    with transaction() as session:
        old_id = claims_of(old)["sid"]
        long_ago = sa.text("now() - interval '31 days'")
        session.execute(sa.update(UserSession).where(UserSession.id == old_id).values(expires_at=long_ago))
        sessions.forget_old(session)
    with transaction() as session:
        assert session.scalars(sa.select(UserSession.id)).all() == [claims_of(new)["sid"]]
        assert session.scalars(sa.select(RefreshToken.session_id)).all() == [claims_of(new)["sid"]]
        assert session.scalar(sa.select(sa.func.count()).select_from(SignInFailures)) == 3
