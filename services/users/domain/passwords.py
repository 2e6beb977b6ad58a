"""Which passwords will do: 12 characters or more and not a common one; no composition rules, no forced rotation.

Common passwords of that length are few words, years and keyboard runs put together, so the list is kept as its parts:
a password is refused when nothing else is in it. Source: RELIABILITY.md "Passwords"; NIST SP 800-63B 3.1.1.2.
"""

import re
import secrets
import unicodedata
from datetime import timedelta
from functools import cache
from typing import Final

from shared.contracts.users import WeakPassword

PASSWORD_LENGTH_MIN: Final = 12
PASSWORD_LENGTH_MAX: Final = 256  # more would only be work for the hash
DISTINCT_CHARACTERS_MIN: Final = 5
TEMPORARY_PASSWORD_BYTES: Final = 15
TEMPORARY_PASSWORD_LIFETIME: Final = timedelta(hours=72)  # over a weekend

_COMMON_WORDS_TEXT: Final = """
password passwort passwd pass passphrase motdepasse contrasena senha parola mima woaini
welcome letmein letmeinplease login logon access secret master superuser admin administrator administrators root
sysadmin operator user username default changeme changemenow change guest hello helloworld
iloveyou loveyou love lovely trustno dragon monkey shadow sunshine princess princesa football baseball basketball
soccer hockey superman batman spiderman pokemon starwars whatever michael michelle jordan jennifer jessica ashley
charlie daniel thomas george andrew joshua matthew robert
cheese cookie chocolate banana summer winter spring autumn flower butterfly computer internet samsung google facebook
microsoft windows liverpool chelsea arsenal barcelona mustang ferrari freedom forever friends family
killer hunter ranger tigger ginger pepper silver golden diamond purple orange
qwerty qwertz azerty qwert asdf asdfgh zxcvbn zxcv qazwsx qazwsxedc edcrfv wsxedc zaqwsx
abc abcd abcde abcdef thisisapassword thisismypassword mypassword correcthorsebatterystaple unbelievable
countinghouse backoffice
"""
_COMMON_WORDS: Final = frozenset(_COMMON_WORDS_TEXT.split())
_RUNS: Final = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "azertyuiop",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
    "qazwsxedcrfvtgbyhnujmikolp",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "zaq12wsxcde34rfv",
    "123qweasdzxc",
)
_RUN_LENGTH_MIN: Final = 4
_LOOKALIKES: Final = str.maketrans("@$!0134578", "asioieastb")


@cache
def _run_pieces() -> frozenset[str]:
    """Return every stretch of a keyboard or alphabet run, forwards and backwards, of a length that counts."""
    pieces = set()
    for run in _RUNS:
        for line in (run, run[::-1]):
            for start in range(len(line)):
                for end in range(start + _RUN_LENGTH_MIN, len(line) + 1):
                    pieces.add(line[start:end])
    return frozenset(pieces)


def _is_put_together(text: str, words: frozenset[str]) -> bool:
    """Return whether nothing but these words, keyboard runs, digits and punctuation is in the text.

    A word counts as well when signs stand for its letters: `p@ssw0rd`.
    """
    pieces = words | _run_pieces()
    length_max = max(map(len, pieces))
    plain = text.translate(_LOOKALIKES)
    reachable = [True] + [False] * len(text)
    for end in range(1, len(text) + 1):
        reachable[end] = (reachable[end - 1] and not text[end - 1].isalpha()) or any(
            reachable[start] and (text[start:end] in pieces or plain[start:end] in pieces)
            for start in range(max(0, end - length_max), end)
        )
    return reachable[-1]


def _is_one_piece_repeated(text: str) -> bool:
    return re.fullmatch(r"(.{1,5}?)\1+.{0,4}", text) is not None


def is_common(password: str, *, username: str) -> bool:
    """Return whether a guesser would try this password early: common words, runs, repetitions, the user's own name."""
    text = unicodedata.normalize("NFKC", password).casefold()
    name = username.casefold()
    words = _COMMON_WORDS | ({name, *re.split(r"[^a-z]+", name)} - {""})
    return len(set(text)) < DISTINCT_CHARACTERS_MIN or _is_one_piece_repeated(text) or _is_put_together(text, words)


def require_strong(password: str, *, username: str) -> None:
    """Refuse a new password that is short, endless or common. Raises: WeakPassword."""
    if len(password) < PASSWORD_LENGTH_MIN:
        raise WeakPassword.of_field("new_password", f"A password has at least {PASSWORD_LENGTH_MIN} characters.")
    if len(password) > PASSWORD_LENGTH_MAX:
        raise WeakPassword.of_field("new_password", f"A password has at most {PASSWORD_LENGTH_MAX} characters.")
    if is_common(password, username=username):
        raise WeakPassword.of_field("new_password", "This password is a common one: choose another.")


def new_temporary_password() -> str:
    """Return a random password to be shown once: 120 bits, in characters that can be read aloud and typed."""
    return secrets.token_urlsafe(TEMPORARY_PASSWORD_BYTES)
