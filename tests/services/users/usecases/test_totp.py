"""Two-factor sign-in against a real PostgreSQL with real commits; what must hold at once, on two connections."""

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace
from typing import Any

import pyotp
import pytest
import sqlalchemy as sa

from services.users.domain.lockouts import BY_CODES, BY_USERNAME_AND_ADDRESS
from services.users.domain.totp import RECOVERY_CODES, STEP_SECONDS
from services.users.models import SignInFailures, TotpSecret, User, UserSession
from services.users.queries import get_me, get_user
from services.users.sealing import SecretCipher
from services.users.tokens import SigningKeys
from services.users.usecases import sessions, totp, users
from shared.contracts.users import (
    GrantExceedsOwn,
    InvalidCredentials,
    InvalidOtp,
    OtpRequired,
    SignInBusy,
    TokenPairView,
    TooManySignIns,
    TotpEnrolmentView,
    TotpOff,
    TotpOn,
    UserSessionRequired,
    WrongOtp,
    WrongPassword,
)
from shared.passport import Passport
from shared.times import utc_now
from tests.services.users.conftest import PASSWORD, Transaction, events, make_user, passport_of

SignIn = Callable[..., TokenPairView]


@pytest.fixture
def alice(transaction: Transaction) -> User:
    with transaction() as session:
        return make_user(session, "alice", roles=["operator"])


@pytest.fixture
def sign_in(transaction: Transaction, keys: SigningKeys, cipher: SecretCipher, anybody: Passport) -> SignIn:
    def sign_in(otp: str | None = None, password: str = PASSWORD, ip: str = "203.0.113.7") -> TokenPairView:
        passport = replace(anybody, ip=ip)
        return sessions.sign_in(transaction, keys, cipher, passport, username="alice", password=password, otp=otp)

    return sign_in


@pytest.fixture
def begin(transaction: Transaction, cipher: SecretCipher, alice: User) -> Callable[[], TotpEnrolmentView]:
    def begin() -> TotpEnrolmentView:
        with transaction() as session:
            return totp.begin_totp(session, passport_of(alice), cipher)

    return begin


@pytest.fixture
def confirm(transaction: Transaction, cipher: SecretCipher, alice: User) -> Callable[[str], None]:
    def confirm(otp: str) -> None:
        with transaction() as session:
            totp.confirm_totp(session, passport_of(alice), cipher, otp=otp)

    return confirm


@pytest.fixture
def enrolment(
    transaction: Transaction, begin: Callable[[], TotpEnrolmentView], confirm: Callable[[str], None]
) -> TotpEnrolmentView:
    """Alice's second factor, on, and as if it had been turned on a while ago."""
    enrolment = begin()
    confirm(code_of(enrolment))
    later(transaction)
    return enrolment


def code_of(enrolment: TotpEnrolmentView, *, steps_off: int = 0) -> str:
    return pyotp.parse_uri(enrolment["otpauth_uri"]).at(time.time() + steps_off * STEP_SECONDS)  # type: ignore[attr-defined,no-any-return]


def wrong_code(enrolment: TotpEnrolmentView) -> str:
    fitting = {code_of(enrolment, steps_off=steps) for steps in (-2, -1, 0, 1, 2)}
    return next(code for code in ("000000", "111111", "222222", "333333", "444444", "555555") if code not in fitting)


def later(transaction: Transaction) -> None:
    """Let no time step count as used, as waiting would."""
    with transaction() as session:
        session.execute(sa.update(TotpSecret).values(last_step=0))


def forgive_time(transaction: Transaction) -> None:
    with transaction() as session:
        session.execute(sa.update(SignInFailures).values(locked_until=utc_now()))


def guess(sign_in: SignIn, otp: str, times: int, **arguments: Any) -> None:
    for _ in range(times):
        with pytest.raises(InvalidOtp):
            sign_in(otp, **arguments)


class TestEnrolment:
    def test_it_is_on_once_it_is_confirmed(
        self,
        begin: Callable[[], TotpEnrolmentView],
        confirm: Callable[[str], None],
        sign_in: SignIn,
        transaction: Transaction,
        alice: User,
    ) -> None:
        first, enrolment = begin(), begin()
        assert first["secret"] != enrolment["secret"]
        assert enrolment["secret"] in enrolment["otpauth_uri"]
        assert sign_in()["access_token"]  # nothing is asked for before it is confirmed
        for otp in (wrong_code(enrolment), code_of(first), enrolment["recovery_codes"][0]):
            with pytest.raises(WrongOtp):
                confirm(otp)
        confirm(code_of(enrolment))
        with transaction() as session:
            assert get_user(session, passport_of(alice), user_id=alice.id).view()["has_totp"]
            me = get_me(session, passport_of(alice))
            assert (me["has_totp"], me["recovery_codes_left"]) == (True, RECOVERY_CODES)
        with pytest.raises(OtpRequired):
            sign_in()
        with pytest.raises(TotpOn):
            begin()
        with pytest.raises(TotpOn):
            confirm(code_of(enrolment))

    def test_nothing_can_be_confirmed_that_was_not_begun(self, confirm: Callable[[str], None]) -> None:
        with pytest.raises(TotpOff):
            confirm("000000")

    def test_the_code_that_confirmed_does_not_sign_in(
        self, begin: Callable[[], TotpEnrolmentView], confirm: Callable[[str], None], sign_in: SignIn
    ) -> None:
        enrolment = begin()
        otp = code_of(enrolment)
        confirm(otp)
        guess(sign_in, otp, 1)

    def test_it_is_for_people_and_not_for_programs(
        self, transaction: Transaction, cipher: SecretCipher, alice: User
    ) -> None:
        program = replace(passport_of(alice), actor_type="api_key", session_id="")
        with pytest.raises(UserSessionRequired), transaction() as session:
            totp.begin_totp(session, program, cipher)

    def test_secret_and_codes_are_nowhere_in_the_clear(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, users_engine: sa.Engine
    ) -> None:
        otp = code_of(enrolment)
        sign_in(otp)
        sign_in(enrolment["recovery_codes"][0])
        with users_engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
            dump = "".join(
                str(row)
                for table in tables
                for row in connection.execute(sa.text(f"select {table}::text from {table}"))
            )
        assert "TotpEnabled" in dump
        secrets = [enrolment["secret"], "otpauth", otp, *enrolment["recovery_codes"]]
        as_bytes = [secret.encode().hex() for secret in secrets]
        assert [s for s in (*secrets, *as_bytes) if s in dump] == []


class TestSignIn:
    def test_a_code_is_asked_for_and_signs_in(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, transaction: Transaction
    ) -> None:
        for nothing in (None, ""):
            with pytest.raises(OtpRequired):
                sign_in(nothing)
        assert sign_in(code_of(enrolment))["access_token"]
        with transaction() as session:
            [signed_in] = events(session, "SignedIn")
            assert signed_in["payload"]["second_factor"] == "totp"
            assert events(session, "SignInFailed") == []

    def test_without_a_second_factor_a_code_is_passed_over(
        self, alice: User, sign_in: SignIn, transaction: Transaction
    ) -> None:
        assert sign_in("123456")["access_token"]
        with transaction() as session:
            assert events(session, "SignedIn")[0]["payload"]["second_factor"] is None

    def test_the_password_is_needed_all_the_same(self, enrolment: TotpEnrolmentView, sign_in: SignIn) -> None:
        for otp in (code_of(enrolment), enrolment["recovery_codes"][0], None):
            with pytest.raises(InvalidCredentials):
                sign_in(otp, password="wrong")
        assert sign_in(code_of(enrolment))["access_token"]  # a refusal of the password spends no code

    def test_a_code_is_used_once(self, enrolment: TotpEnrolmentView, sign_in: SignIn) -> None:
        otp = code_of(enrolment)
        sign_in(otp)
        guess(sign_in, otp, 1)
        guess(sign_in, code_of(enrolment, steps_off=-1), 1)  # nor an earlier one

    @pytest.mark.parametrize("kind", ["code", "recovery code"])
    def test_of_many_at_once_with_one_code_one_gets_in(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, kind: str
    ) -> None:
        otp = code_of(enrolment) if kind == "code" else enrolment["recovery_codes"][0]
        together, outcomes = threading.Barrier(6), list[str]()

        def attempt() -> None:
            together.wait()
            try:
                sign_in(otp)
                outcomes.append("in")
            except InvalidOtp as error:
                outcomes.append(error.code)

        threads = [threading.Thread(target=copy_context().run, args=(attempt,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["in", *["invalid_otp"] * 5]

    def test_of_two_transactions_that_have_both_found_a_step_unused_one_uses_it(
        self, enrolment: TotpEnrolmentView, users_engine: sa.Engine, cipher: SecretCipher, alice: User
    ) -> None:
        """The note of the step decides by itself, without the lock on the user that sign-in holds besides."""
        otp = code_of(enrolment)
        with sa.orm.Session(users_engine) as one, sa.orm.Session(users_engine) as other:
            secrets = [session.get_one(TotpSecret, alice.id) for session in (one, other)]
            assert totp._use_step(one, cipher, secrets[0], otp)
            outcome: list[bool] = []
            waiting = threading.Thread(target=lambda: outcome.append(totp._use_step(other, cipher, secrets[1], otp)))
            waiting.start()
            waiting.join(0.3)
            assert waiting.is_alive()  # it waits for the first one's row
            one.commit()
            waiting.join()
            assert outcome == [False]

    def test_a_recovery_code_signs_in_once_and_is_told(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, transaction: Transaction, alice: User
    ) -> None:
        first, second = enrolment["recovery_codes"][:2]
        assert sign_in(first.upper().replace("-", " "))["access_token"]
        guess(sign_in, first, 1)
        assert sign_in(second)["access_token"]
        with transaction() as session:
            left = [e["payload"]["codes_left"] for e in events(session, "RecoveryCodeUsed")]
            assert left == [RECOVERY_CODES - 1, RECOVERY_CODES - 2]
            assert [e["payload"]["second_factor"] for e in events(session, "SignedIn")] == ["recovery_code"] * 2
            assert get_me(session, passport_of(alice))["recovery_codes_left"] == RECOVERY_CODES - 2

    def test_another_users_recovery_code_is_worth_nothing(
        self, enrolment: TotpEnrolmentView, transaction: Transaction, cipher: SecretCipher, sign_in: SignIn
    ) -> None:
        with transaction() as session:
            others = totp.begin_totp(session, passport_of(make_user(session, "bob")), cipher)
        guess(sign_in, others["recovery_codes"][0], 1)
        guess(sign_in, code_of(others), 1)


class TestGuessing:
    def test_guesses_lock_the_name_at_their_address(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, transaction: Transaction
    ) -> None:
        sign_in(code_of(enrolment))  # so that this address is known, where only its own count locks
        guess(sign_in, wrong_code(enrolment), BY_USERNAME_AND_ADDRESS.failures_free)
        with pytest.raises(TooManySignIns):
            sign_in(enrolment["recovery_codes"][0])
        with transaction() as session:
            assert {e["payload"]["factor"] for e in events(session, "SignInFailed")} == {"otp"}

    def test_guesses_that_wait_for_each_other_do_not_slip_past_the_lock(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, users_engine: sa.Engine, alice: User
    ) -> None:
        """Twelve guesses, from an address that is known, are all past the first look at the lock before one is told."""
        sign_in(code_of(enrolment))
        wrong, outcomes = wrong_code(enrolment), list[str]()

        def attempt() -> None:
            try:
                sign_in(wrong)
            except (InvalidOtp, TooManySignIns, SignInBusy) as error:
                outcomes.append(error.code)

        threads = [threading.Thread(target=copy_context().run, args=(attempt,)) for _ in range(12)]
        waiting = sa.text(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        with users_engine.begin() as holder, users_engine.connect() as watcher:
            holder.execute(sa.select(User.id).where(User.id == alice.id).with_for_update())
            for thread in threads:
                thread.start()
            while watcher.scalar(waiting) + len(outcomes) < len(threads):
                watcher.rollback()
                time.sleep(0.05)
        for thread in threads:
            thread.join()
        assert outcomes.count("invalid_otp") <= BY_USERNAME_AND_ADDRESS.failures_free

    def test_the_right_password_alone_does_not_clear_the_count(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn
    ) -> None:
        for _ in range(BY_CODES.failures_free):
            guess(sign_in, wrong_code(enrolment), 1)
            with pytest.raises(OtpRequired):
                sign_in()
        with pytest.raises(TooManySignIns):
            sign_in(code_of(enrolment))

    def test_guesses_from_many_addresses_are_stopped_together_and_known_addresses_go_on(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, transaction: Transaction
    ) -> None:
        sign_in(code_of(enrolment), ip="203.0.113.7")
        later(transaction)
        for number in range(BY_CODES.failures_free):
            guess(sign_in, wrong_code(enrolment), 1, ip=f"198.51.100.{number}")
        with pytest.raises(TooManySignIns):
            sign_in(code_of(enrolment), ip="198.51.100.200")
        with pytest.raises(InvalidCredentials):
            sign_in(code_of(enrolment), password="wrong", ip="198.51.100.200")  # the lock tells nothing of passwords
        assert sign_in(code_of(enrolment), ip="203.0.113.7")["access_token"]

    def test_the_lock_of_codes_grows_for_a_day_and_ends(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, transaction: Transaction
    ) -> None:
        for number in range(BY_CODES.failures_free):
            guess(sign_in, wrong_code(enrolment), 1, ip=f"198.51.100.{number}")
        with transaction() as session:
            session.execute(
                sa.text("update sign_in_failures set last_failed_at = now() - interval '3 hours', locked_until = now()")
            )
        guess(sign_in, wrong_code(enrolment), 1, ip="198.51.100.200")
        with pytest.raises(TooManySignIns) as caught:
            sign_in(code_of(enrolment), ip="198.51.100.201")
        retry_after = caught.value.extra["retry_after_seconds"]
        assert BY_CODES.first_lock_seconds < retry_after <= BY_CODES.lock_seconds_max
        forgive_time(transaction)
        assert sign_in(code_of(enrolment), ip="198.51.100.201")["access_token"]


class TestRemoval:
    def test_the_password_turns_it_off(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, transaction: Transaction, alice: User
    ) -> None:
        with pytest.raises(WrongPassword):
            sessions.remove_totp(transaction, passport_of(alice), password="wrong")
        with pytest.raises(OtpRequired):
            sign_in()
        sessions.remove_totp(transaction, passport_of(alice), password=PASSWORD)
        assert sign_in()["access_token"]
        with pytest.raises(TotpOff):
            sessions.remove_totp(transaction, passport_of(alice), password=PASSWORD)
        with transaction() as session:
            assert len(events(session, "TotpDisabled")) == 1
            assert get_me(session, passport_of(alice))["recovery_codes_left"] == 0

    def test_guesses_at_the_password_by_this_way_lock_too(
        self, enrolment: TotpEnrolmentView, transaction: Transaction, alice: User
    ) -> None:
        for _ in range(BY_USERNAME_AND_ADDRESS.failures_free):
            with pytest.raises(WrongPassword):
                sessions.remove_totp(transaction, passport_of(alice), password="wrong")
        with pytest.raises(TooManySignIns):
            sessions.remove_totp(transaction, passport_of(alice), password=PASSWORD)

    def test_what_was_not_confirmed_is_dropped_without_a_word(
        self, begin: Callable[[], TotpEnrolmentView], transaction: Transaction, alice: User
    ) -> None:
        begin()
        sessions.remove_totp(transaction, passport_of(alice), password=PASSWORD)
        with transaction() as session:
            assert events(session, "TotpDisabled") == []
            assert session.get(TotpSecret, alice.id) is None

    def test_an_administrator_resets_it_with_a_reason(
        self, enrolment: TotpEnrolmentView, sign_in: SignIn, transaction: Transaction, alice: User
    ) -> None:
        for number in range(BY_CODES.failures_free):
            guess(sign_in, wrong_code(enrolment), 1, ip=f"198.51.100.{number}")
        with transaction() as session:
            root = passport_of(make_user(session, "root", roles=["administrator"]))
            view = users.reset_totp(session, root, user_id=alice.id, reason="lost the phone")
            assert not view["has_totp"]
        with transaction() as session:
            assert [e["payload"]["reason"] for e in events(session, "TotpReset")] == ["lost the phone"]
            assert session.scalars(sa.select(UserSession)).all() == []
        assert sign_in()["access_token"]
        with pytest.raises(TotpOff), transaction() as session:
            users.reset_totp(session, root, user_id=alice.id, reason="again")

    def test_nobody_resets_that_of_somebody_stronger(self, transaction: Transaction, cipher: SecretCipher) -> None:
        with transaction() as session:
            root = make_user(session, "root", roles=["administrator"])
            totp.begin_totp(session, passport_of(root), cipher)
            weak = replace(passport_of(root), actor_id="usr_weak", permissions={"users": "admin"})
            with pytest.raises(GrantExceedsOwn):
                users.reset_totp(session, weak, user_id=root.id, reason="mine now")
