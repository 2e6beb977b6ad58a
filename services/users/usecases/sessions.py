"""Signing in, going on with a refresh token, signing out, ending sessions, and changing one's own password.

Some of these are not one transaction each. A refusal here must leave its mark (a counted failure, an ended session),
and Argon2 takes its time, during which no connection or lock is held; so they take `transaction`, which gives a
session and commits it, in place of a session.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, lazyload

from services.users.domain.lockouts import (
    CODES,
    EVERY_ADDRESS,
    EVERY_NAME,
    KNOWN_ADDRESS_DAYS,
    QUIET_SECONDS_MAX,
    address_of,
    name_key,
    policy_for,
    unknown_name_key,
)
from services.users.domain.passwords import require_strong
from services.users.hashing import fits, hash_password, is_outdated
from services.users.models import RefreshToken, SignInFailures, User, UserSession
from services.users.sealing import SecretCipher
from services.users.tokens import SigningKeys, new_secret, secret_hash
from services.users.usecases import totp
from shared import outbox
from shared.contracts.users import (
    ACCESS_TOKEN_LIFETIME_SECONDS,
    REFRESH_TOKEN_PREFIX,
    InvalidCredentials,
    InvalidOtp,
    InvalidRefreshToken,
    PasswordChanged,
    RefreshTokenReused,
    SessionEnded,
    SessionNotFound,
    SessionOver,
    SignedIn,
    SignInFailed,
    TemporaryPasswordExpired,
    TokenPairView,
    TooManySignIns,
    UserSessionRequired,
    WeakPassword,
    WrongPassword,
)
from shared.errors import Unauthenticated
from shared.ids import new_id
from shared.passport import Passport
from shared.rpc.wire import current_call
from shared.times import utc_now

SESSION_LIFETIME: Final = timedelta(days=7)
REFRESH_TOKEN_LIFETIME: Final = timedelta(hours=24)
FORGET_SESSIONS_AFTER: Final = timedelta(days=KNOWN_ADDRESS_DAYS)
USER_AGENT_LENGTH_MAX: Final = 300

Transaction = Callable[[], AbstractContextManager[Session]]


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """Somebody who tries to prove a user's password, from an address; `user_id` is None where nobody has the name."""

    username_key: str
    address: str
    user_id: str | None
    password_hash: str | None


def sign_in(
    transaction: Transaction,
    keys: SigningKeys,
    cipher: SecretCipher,
    passport: Passport,
    *,
    username: str,
    password: str,
    otp: str | None = None,
) -> TokenPairView:
    """Begin a session for whoever knows the name and the password, and has the second factor where there is one.

    A wrong name, a wrong password and a disabled user do the same work and get the same answer.
    otp: a code of the authenticator, or a recovery code; passed over for users without a second factor.
    Raises, in order: TooManySignIns, SignInBusy, InvalidCredentials, TemporaryPasswordExpired, OtpRequired,
    TooManySignIns, InvalidOtp.
    Emits: SignedIn, and RecoveryCodeUsed; or SignInFailed, which stays though the call is refused.
    """
    with transaction() as session:
        attempt = _attempt(session, passport, username)
    fits_well = fits(password, attempt.password_hash)
    fresh_hash = hash_password(password) if fits_well and is_outdated(attempt.password_hash or "") else None
    with transaction() as session:
        _require_unlocked(session, attempt)
        user = _proven_user(session, attempt, fits_well=fits_well)
        if user is None or user.status != "active":
            refusal: Unauthenticated = InvalidCredentials()
            _count_failure(session, attempt)
        else:
            _require_in_force(user)
            if otp and user.has_totp:
                _require_unlocked(session, attempt, is_code=True)  # again: others may have guessed before this lock
            try:
                factor = totp.second_factor(session, cipher, user, otp=otp)
            except InvalidOtp as invalid:
                refusal = invalid
                _count_failure(session, attempt, is_code=True)
            else:
                _forget_failures(session, attempt, codes_too=factor is not None)
                return _begin_session(session, keys, passport, user, attempt.address, fresh_hash, factor)
    raise refusal


def refresh_session(transaction: Transaction, keys: SigningKeys, *, refresh_token: str) -> TokenPairView:
    """Spend a refresh token for a new pair of tokens.

    Of two who show one token at once the first wins and the second counts as reuse, which ends the session for both:
    there is no grace, since a thief who is quick enough would fall under it.
    Raises: InvalidRefreshToken.
    Emits: RefreshTokenReused and SessionEnded on reuse, which stay though the call is refused.
    Locks: the session.
    """
    with transaction() as session:
        token_hash = secret_hash(refresh_token)
        of_token = sa.select(RefreshToken.session_id).where(RefreshToken.token_hash == token_hash)
        family = session.scalar(
            sa.select(UserSession)
            .where(UserSession.id == of_token.scalar_subquery(), UserSession.ended_at.is_(None))
            .with_for_update()
        )
        token = session.get(RefreshToken, token_hash)
        if family is not None and token is not None:
            user = session.get_one(User, family.user_id)
            now = utc_now()
            if token.spent_at is not None:
                reused = RefreshTokenReused(session_id=family.id, user_id=user.id, username=user.username)
                outbox.add(session, reused)
                end_sessions(session, user, why="refresh_token_reused", only_session_id=family.id)
            elif user.status == "active" and min(token.expires_at, family.expires_at) > now:
                token.spent_at = now
                return _token_pair(session, keys, user, family)
    raise InvalidRefreshToken()


def end_session(session: Session, passport: Passport, *, everywhere: bool) -> None:
    """Sign the caller out: this session, or all of the user's.

    Raises: UserSessionRequired, SessionOver.
    Emits: SessionEnded for each.
    """
    user = session.get(User, _user_id(passport))
    if user is None:
        raise SessionOver()
    only = None if everywhere else passport.session_id
    end_sessions(session, user, why="signed_out", only_session_id=only)


def end_my_session(session: Session, passport: Passport, *, session_id: str) -> None:
    """End one of the caller's own sessions, this one or another.

    Raises, in order: UserSessionRequired, SessionOver, SessionNotFound.
    Emits: SessionEnded.
    """
    user = session.get(User, _user_id(passport))
    if user is None:
        raise SessionOver()
    end_one_session(session, user, why="signed_out", session_id=session_id)


def change_password(transaction: Transaction, passport: Passport, *, current_password: str, new_password: str) -> None:
    """Change the caller's own password and end their other sessions.

    A wrong current password counts like a failed sign-in, so that a stolen session cannot be used to guess it.
    Raises, in order: UserSessionRequired, SessionOver, TooManySignIns, WeakPassword, SignInBusy, WrongPassword,
    TemporaryPasswordExpired.
    Emits: PasswordChanged, and SessionEnded for each other session.
    """
    with transaction() as session:
        user = session.get(User, _user_id(passport))
        if user is None:
            raise SessionOver()
        attempt = _attempt(session, passport, user.username)
    require_strong(new_password, username=user.username)
    if new_password == current_password:
        raise WeakPassword.of_field("new_password", "The new password is the current one.")
    fits_well = fits(current_password, attempt.password_hash)
    new_hash = hash_password(new_password) if fits_well else ""
    with transaction() as session:
        _require_unlocked(session, attempt)
        proven = _proven_user(session, attempt, fits_well=fits_well)
        if proven is not None:
            _require_in_force(proven)
            _forget_failures(session, attempt)
            proven.password_hash, proven.must_change_password = new_hash, False
            proven.password_expires_at, proven.updated_at = None, utc_now()
            outbox.add(session, PasswordChanged(user_id=proven.id, username=proven.username))
            end_sessions(session, proven, why="password_changed", except_session_id=passport.session_id)
            return
        _count_failure(session, attempt)
    raise WrongPassword.of_field("current_password", WrongPassword.title)


def remove_totp(transaction: Transaction, passport: Passport, *, password: str) -> None:
    """Turn the caller's own two-factor sign-in off.

    A wrong password counts like a failed sign-in, so that a stolen session cannot be used to guess it.
    Raises, in order: UserSessionRequired, SessionOver, TooManySignIns, SignInBusy, TotpOff, WrongPassword.
    Emits: TotpDisabled, where it was on.   Locks: the user.
    """
    with transaction() as session:
        user = session.get(User, _user_id(passport))
        if user is None:
            raise SessionOver()
        attempt = _attempt(session, passport, user.username)
    fits_well = fits(password, attempt.password_hash)
    with transaction() as session:
        _require_unlocked(session, attempt)
        proven = _proven_user(session, attempt, fits_well=fits_well)
        if proven is not None:
            totp.turn_off(session, proven)
            _forget_failures(session, attempt)
            return
        _count_failure(session, attempt)
    raise WrongPassword.of_field("password", "The password is wrong.")


def end_sessions(
    session: Session,
    user: User,
    *,
    why: str,
    only_session_id: str | None = None,
    except_session_id: str | None = None,
) -> int:
    """End the user's open sessions: all of them, one, or all but one.

    Returns: how many ended.
    Emits: SessionEnded for each.
    """
    ending = sa.update(UserSession).where(UserSession.user_id == user.id, UserSession.ended_at.is_(None))
    if only_session_id is not None:
        ending = ending.where(UserSession.id == only_session_id)
    if except_session_id is not None:
        ending = ending.where(UserSession.id != except_session_id)
    ending = ending.values(ended_at=sa.func.now(), ended_why=why).returning(UserSession.id)
    ended = session.scalars(ending.execution_options(synchronize_session=False)).all()
    outbox.add(
        session,
        *(SessionEnded(session_id=id_, user_id=user.id, username=user.username, why=why) for id_ in sorted(ended)),
    )
    return len(ended)


def end_one_session(session: Session, user: User, *, why: str, session_id: str) -> None:
    """End an open session of the user; of two who end it at once, one finds none.

    Raises: SessionNotFound, also for a session of somebody else.
    Emits: SessionEnded.
    """
    if not end_sessions(session, user, why=why, only_session_id=session_id):
        raise SessionNotFound()


def forget_old(session: Session) -> None:
    """Delete what no longer matters: sessions long over with their tokens, and failures of a quiet past."""
    long_ago = utc_now() - FORGET_SESSIONS_AFTER
    session.execute(sa.delete(UserSession).where(UserSession.expires_at < long_ago))
    quiet = utc_now() - timedelta(seconds=QUIET_SECONDS_MAX)
    session.execute(sa.delete(SignInFailures).where(SignInFailures.last_failed_at < quiet))


def _user_id(passport: Passport) -> str:
    if passport.actor_type != "user" or not passport.session_id:
        raise UserSessionRequired()
    return passport.actor_id


def _attempt(session: Session, passport: Passport, username: str) -> _Attempt:
    """Return the attempt, unless its name is locked for its address. Raises: TooManySignIns."""
    username_key = name_key(username)
    # Two columns and not a user: to load roles, too, would tell a name that exists by the time it takes.
    found = session.execute(sa.select(User.id, User.password_hash).where(User.username_key == username_key)).first()
    attempt = _Attempt(
        username_key=username_key if found else unknown_name_key(username_key),
        address=address_of(passport.ip),
        user_id=found.id if found else None,
        password_hash=found.password_hash if found else None,
    )
    _require_unlocked(session, attempt)
    return attempt


def _require_unlocked(session: Session, attempt: _Attempt, *, is_code: bool = False) -> None:
    """Refuse an attempt while its name is locked, also one that began before: or guesses sent at once would get past.

    is_code: mind the lock of guesses at the second factor too, which only who has proven the password meets.
    Raises: TooManySignIns.
    """
    now = utc_now()
    known = sa.exists().where(
        UserSession.user_id == attempt.user_id,
        UserSession.address == attempt.address,
        UserSession.created_at > now - timedelta(days=KNOWN_ADDRESS_DAYS),
    )
    of_name = SignInFailures.username_key == attempt.username_key
    whole_address = sa.and_(SignInFailures.username_key == EVERY_NAME, SignInFailures.address == attempt.address)
    whole_name = sa.and_(of_name, SignInFailures.address.in_([EVERY_ADDRESS, CODES] if is_code else [EVERY_ADDRESS]))
    here = sa.and_(of_name, SignInFailures.address == attempt.address)
    locks = sa.or_(here, sa.and_(sa.or_(whole_name, whole_address), ~known))
    locked_until = session.scalar(sa.select(sa.func.max(SignInFailures.locked_until)).where(locks))
    if locked_until is not None and locked_until > now:
        raise TooManySignIns(retry_after_seconds=int((locked_until - now).total_seconds()) + 1)


def _proven_user(session: Session, attempt: _Attempt, *, fits_well: bool) -> User | None:
    """Return the user whose password was just proven, locked; None if it does not fit or was changed meanwhile.

    Asks the database in either case, so that both take the same time.
    """
    proven_hash = attempt.password_hash if fits_well else None
    return session.scalar(
        sa.select(User)
        .where(User.id == attempt.user_id, User.password_hash == proven_hash)
        .options(lazyload("*"))
        .with_for_update(of=User)
    )


def _require_in_force(user: User) -> None:
    """Refuse a temporary password that nobody changed in time. Raises: TemporaryPasswordExpired."""
    if user.password_expires_at is not None and user.password_expires_at <= utc_now():
        raise TemporaryPasswordExpired()


def _forget_failures(session: Session, attempt: _Attempt, *, codes_too: bool = False) -> None:
    addresses = [attempt.address, CODES] if codes_too else [attempt.address]
    session.execute(
        sa.delete(SignInFailures).where(
            SignInFailures.username_key == attempt.username_key, SignInFailures.address.in_(addresses)
        )
    )


def _count_failure(session: Session, attempt: _Attempt, *, is_code: bool = False) -> None:
    """Count a failure wherever it counts, and lock what has had too many.

    The address as a whole counts names: it is the first failure of a name there that counts for it.
    The counters come always in one order, so that two failures never wait for each other.
    """
    name, address = attempt.username_key, attempt.address
    _, everywhere_seconds = _count(session, name, EVERY_ADDRESS)
    failures, locked_seconds = _count(session, name, address)
    locked_seconds = max(locked_seconds, everywhere_seconds)
    if is_code:
        locked_seconds = max(locked_seconds, _count(session, name, CODES)[1])
    if failures == 1:
        locked_seconds = max(locked_seconds, _count(session, EVERY_NAME, address)[1])
    outbox.add(
        session,
        SignInFailed(
            user_id=attempt.user_id,
            username=name if attempt.user_id else None,
            failures=failures,
            locked_seconds=locked_seconds,
            factor="otp" if is_code else "password",
        ),
    )


def _count(session: Session, username_key: str, address: str) -> tuple[int, int]:
    """Count a failure of one counter, and lock it where it has had too many.

    Returns: the failures since it was quiet, and for how many seconds it is locked now.
    """
    policy = policy_for(username_key, address)
    row = insert(SignInFailures).values(username_key=username_key, address=address, failures=1)
    is_quiet = SignInFailures.last_failed_at < sa.func.now() - timedelta(seconds=policy.quiet_seconds)
    counted = row.on_conflict_do_update(
        index_elements=["username_key", "address"],
        set_={
            "failures": sa.case((is_quiet, 1), else_=SignInFailures.failures + 1),
            "last_failed_at": sa.func.now(),
        },
    )
    failures = session.scalars(counted.returning(SignInFailures.failures)).one()
    seconds = policy.lock_seconds(failures)
    if seconds:
        locked_until = utc_now() + timedelta(seconds=seconds)
        this = sa.and_(SignInFailures.username_key == username_key, SignInFailures.address == address)
        session.execute(sa.update(SignInFailures).where(this).values(locked_until=locked_until))
    return failures, seconds


def _begin_session(
    session: Session,
    keys: SigningKeys,
    passport: Passport,
    user: User,
    address: str,
    fresh_hash: str | None,
    second_factor: str | None,
) -> TokenPairView:
    now = utc_now()
    family = UserSession(
        id=new_id("ses"),
        user_id=user.id,
        address=address,
        ip=passport.ip,
        user_agent=passport.user_agent[:USER_AGENT_LENGTH_MAX],
        expires_at=now + SESSION_LIFETIME,
    )
    session.add(family)
    user.last_signed_in_at = now
    user.password_hash = fresh_hash or user.password_hash
    with _acting_as(user, family.id):
        signed_in = SignedIn(user_id=user.id, username=user.username, session_id=family.id, second_factor=second_factor)
        outbox.add(session, signed_in)
    return _token_pair(session, keys, user, family)


def _token_pair(session: Session, keys: SigningKeys, user: User, family: UserSession) -> TokenPairView:
    now = utc_now()
    refresh_token = REFRESH_TOKEN_PREFIX + new_secret()
    session.flush()
    session.add(
        RefreshToken(
            token_hash=secret_hash(refresh_token),
            session_id=family.id,
            expires_at=min(now + REFRESH_TOKEN_LIFETIME, family.expires_at),
        )
    )
    session.flush()
    return {
        "access_token": keys.access_token(user_id=user.id, session_id=family.id, now=now),
        "refresh_token": refresh_token,
        "token_type": "Bearer",
        "expires_in": ACCESS_TOKEN_LIFETIME_SECONDS,
        "must_change_password": user.must_change_password,
    }


@contextmanager
def _acting_as(user: User, session_id: str) -> Iterator[None]:
    """Let events name the user as the actor: the call came from nobody, who has now proved to be this user."""
    call = current_call.get()
    proven = replace(
        call.passport, actor_id=user.id, actor_name=user.username, actor_type="user", session_id=session_id
    )
    token = current_call.set(replace(call, passport=proven))
    try:
        yield
    finally:
        current_call.reset(token)
