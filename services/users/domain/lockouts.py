"""When failed sign-ins lock a name: the lock grows with each failure, ends by itself, and shuts nobody out for good.

Two counters run side by side. The one of (username, address) is strict. The one of the username alone slows down who
guesses from many addresses; it is soft, and addresses that this user has signed in from lately are exempt from it, so
that an attacker cannot keep the user out of their own office.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final

EVERY_ADDRESS: Final = ""
QUIET_SECONDS: Final = 3600  # after so long without a failure the count begins again
KNOWN_ADDRESS_DAYS: Final = 30


@dataclass(frozen=True, kw_only=True)
class LockPolicy:
    """How many failures are free, and how the lock grows after them."""

    failures_free: int
    first_lock_seconds: int
    lock_seconds_max: int

    def lock_seconds(self, failures: int) -> int:
        """Return for how long the latest of so many failures locks: nothing, then doubling up to the most."""
        beyond = failures - self.failures_free
        if beyond < 0:
            return 0
        # Twenty doublings are beyond any maximum; the bound keeps the number small.
        return min(self.lock_seconds_max, self.first_lock_seconds << min(beyond, 20))


BY_ADDRESS: Final = LockPolicy(failures_free=8, first_lock_seconds=15, lock_seconds_max=900)
BY_USERNAME: Final = LockPolicy(failures_free=60, first_lock_seconds=15, lock_seconds_max=300)


def policy_for(address: str) -> LockPolicy:
    """Return the policy of a counter by the address that it stands for."""
    return BY_USERNAME if address == EVERY_ADDRESS else BY_ADDRESS


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
