"""Two-factor sign-in: set up, confirmed, used, turned off by the user, or by somebody else with a reason."""

import time

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users.domain.totp import (
    matching_step,
    new_recovery_codes,
    new_secret,
    otpauth_uri,
    recovery_code_hash,
)
from services.users.models import RecoveryCode, TotpSecret, User
from services.users.sealing import SealedSecret, SecretCipher
from shared import outbox
from shared.contracts.users import (
    InvalidOtp,
    OtpRequired,
    RecoveryCodeUsed,
    SessionOver,
    TotpBegun,
    TotpDisabled,
    TotpEnabled,
    TotpEnrolmentView,
    TotpOff,
    TotpOn,
    UserSessionRequired,
    WrongOtp,
)
from shared.passport import Passport

TOTP, RECOVERY_CODE = "totp", "recovery_code"


def begin_totp(session: Session, passport: Passport, cipher: SecretCipher) -> TotpEnrolmentView:
    """Give the caller a new secret and new recovery codes, which count from their confirmation on.

    Beginning again replaces what was not confirmed.
    Raises, in order: UserSessionRequired, SessionOver, TotpOn.
    Emits: TotpBegun.   Locks: the user.
    """
    user = _lock_caller(session, passport)
    if user.has_totp:
        raise TotpOn()
    secret, codes = new_secret(), new_recovery_codes()
    sealed = cipher.seal(secret, user_id=user.id)
    _delete(session, user)
    session.add(TotpSecret(user_id=user.id, key_id=sealed.key_id, sealed=sealed.sealed))
    session.flush()
    session.add_all(RecoveryCode(user_id=user.id, code_hash=recovery_code_hash(c, user_id=user.id)) for c in codes)
    outbox.add(session, TotpBegun(user_id=user.id, username=user.username))
    return {
        "otpauth_uri": otpauth_uri(secret, username=user.username),
        "secret": secret,
        "recovery_codes": codes,
    }


def confirm_totp(session: Session, passport: Passport, cipher: SecretCipher, *, otp: str) -> None:
    """Turn the caller's two-factor sign-in on, once they show a code of the new secret.

    Raises, in order: UserSessionRequired, SessionOver, TotpOff, TotpOn, WrongOtp.
    Emits: TotpEnabled.   Locks: the user.
    """
    user = _lock_caller(session, passport)
    secret = session.get(TotpSecret, user.id, populate_existing=True)
    if secret is None:
        raise TotpOff()
    if secret.confirmed_at is not None:
        raise TotpOn()
    if not _use_step(session, cipher, secret, otp):
        raise WrongOtp.of_field("otp", WrongOtp.title)
    secret.confirmed_at = sa.func.now()
    session.flush()
    outbox.add(session, TotpEnabled(user_id=user.id, username=user.username))


def turn_off(session: Session, user: User) -> None:
    """Turn off the two-factor sign-in of a user who has just proven the password, or drop what was not confirmed.

    Raises: TotpOff.
    Emits: TotpDisabled, where it was on.
    """
    if not _delete(session, user):
        raise TotpOff()
    if user.has_totp:
        outbox.add(session, TotpDisabled(user_id=user.id, username=user.username))


def reset(session: Session, user: User) -> None:
    """Take a locked user's second factor away. Raises: TotpOff."""
    if not _delete(session, user):
        raise TotpOff()


def second_factor(session: Session, cipher: SecretCipher, user: User, *, otp: str | None) -> str | None:
    """Check and spend the second factor of a locked user who has proven the password.

    Returns: what proved it, totp or recovery_code; None for a user who has no second factor.
    Raises: OtpRequired, InvalidOtp.
    Emits: RecoveryCodeUsed.
    """
    secret = session.get(TotpSecret, user.id, populate_existing=True)
    if secret is None or secret.confirmed_at is None:
        return None
    if not otp:
        raise OtpRequired()
    if _use_step(session, cipher, secret, otp):
        return TOTP
    if _use_recovery_code(session, user, otp):
        return RECOVERY_CODE
    raise InvalidOtp()


def _use_step(session: Session, cipher: SecretCipher, secret: TotpSecret, otp: str) -> bool:
    """Return whether a code fits, and note its time step, so that neither it nor an earlier one fits again.

    The note is conditional on its own: of two sign-ins with one code at once, one fits, whatever else they lock.
    """
    plain = cipher.open(SealedSecret(secret.key_id, secret.sealed), user_id=secret.user_id)
    step = matching_step(plain, otp, at_seconds=time.time(), after_step=secret.last_step)
    if step is None:
        return False
    noted = (
        sa.update(TotpSecret)
        .where(TotpSecret.user_id == secret.user_id, TotpSecret.last_step < step)
        .values(last_step=step)
        .returning(TotpSecret.user_id)
    )
    return session.scalar(noted) is not None


def _use_recovery_code(session: Session, user: User, code: str) -> bool:
    """Return whether a code is one of the user's recovery codes, which it is no longer after that."""
    mine = RecoveryCode.user_id == user.id
    used = sa.delete(RecoveryCode).where(mine, RecoveryCode.code_hash == recovery_code_hash(code, user_id=user.id))
    if session.scalar(used.returning(RecoveryCode.user_id)) is None:
        return False
    left = session.scalars(sa.select(sa.func.count()).select_from(RecoveryCode).where(mine)).one()
    outbox.add(session, RecoveryCodeUsed(user_id=user.id, username=user.username, codes_left=left))
    return True


def _delete(session: Session, user: User) -> bool:
    deleted = sa.delete(TotpSecret).where(TotpSecret.user_id == user.id).returning(TotpSecret.user_id)
    return session.scalar(deleted.execution_options(synchronize_session=False)) is not None


def _lock_caller(session: Session, passport: Passport) -> User:
    if passport.actor_type != "user" or not passport.session_id:
        raise UserSessionRequired()
    statement = sa.select(User).where(User.id == passport.actor_id).with_for_update(of=User)
    user = session.scalar(statement.execution_options(populate_existing=True))
    if user is None:
        raise SessionOver()
    return user
