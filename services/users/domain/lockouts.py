"""When failed sign-ins lock a name: the lock grows with each failure, ends by itself, and shuts nobody out for good.

Counters run side by side. The one of (username, address) is strict. The one of the username alone slows down who
guesses from many addresses; the one of the address alone, which counts names and not failures, who tries one password
on many names; the one of codes, who knows the password and guesses the second factor. From these three, addresses that
the user has signed in from lately are exempt, so that an attacker cannot keep users out of their own office.
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import Final

EVERY_ADDRESS: Final = ""
CODES: Final = "codes"  # stands for the address of guesses at the second factor, from wherever they come
EVERY_NAME: Final = "\n"  # stands for the name of an address's own counter; no name has a line end at its beginning
KNOWN_ADDRESS_DAYS: Final = 30
UNKNOWN_NAME_DIGITS: Final = 6


@dataclass(frozen=True, kw_only=True)
class LockPolicy:
    """How many failures are free, how the lock grows after them, and how long without any begins the count anew."""

    failures_free: int
    first_lock_seconds: int
    lock_seconds_max: int
    quiet_seconds: int = 3600

    def lock_seconds(self, failures: int) -> int:
        """Return for how long the latest of so many failures locks: nothing, then doubling up to the most."""
        beyond = failures - self.failures_free
        if beyond < 0:
            return 0
        # Twenty doublings are beyond any maximum; the bound keeps the number small.
        return min(self.lock_seconds_max, self.first_lock_seconds << min(beyond, 20))


BY_USERNAME_AND_ADDRESS: Final = LockPolicy(failures_free=8, first_lock_seconds=15, lock_seconds_max=900)
BY_USERNAME: Final = LockPolicy(failures_free=60, first_lock_seconds=15, lock_seconds_max=300)
BY_ADDRESS: Final = LockPolicy(failures_free=60, first_lock_seconds=15, lock_seconds_max=60)
# Three codes of a million fit at any time. At an hour between guesses, half a lifetime finds none.
BY_CODES: Final = LockPolicy(failures_free=5, first_lock_seconds=30, lock_seconds_max=3600, quiet_seconds=86_400)
QUIET_SECONDS_MAX: Final = max(p.quiet_seconds for p in (BY_USERNAME_AND_ADDRESS, BY_USERNAME, BY_ADDRESS, BY_CODES))


def policy_for(username_key: str, address: str) -> LockPolicy:
    """Return the policy of a counter by the name and the address that it stands for."""
    if username_key == EVERY_NAME:
        return BY_ADDRESS
    return {EVERY_ADDRESS: BY_USERNAME, CODES: BY_CODES}.get(address, BY_USERNAME_AND_ADDRESS)


def address_of(ip: str) -> str:
    """Return what is counted for an IP address: itself, or the /64 of an IPv6 one, which one person commands whole."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return "unknown"
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


def name_key(username: str) -> str:
    """Return the form under which a username is unique and counted: letter case does not tell users apart."""
    return username.strip().casefold()


def unknown_name_key(name_key: str) -> str:
    """Return the form under which a name that nobody has is counted: people type passwords into the wrong field.

    So short a hash tells a few of them apart, and fits so many passwords that it does not tell which one it was.
    """
    return f"?{hashlib.sha256(name_key.encode()).hexdigest()[:UNKNOWN_NAME_DIGITS]}"
