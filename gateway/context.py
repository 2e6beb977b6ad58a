"""What one request carries from its first byte to its last: who, until when, under which id."""

import re
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address

from flask import Request, g

from gateway.authentication import Caller
from gateway.terms import DEADLINE_SECONDS_DEFAULT, UNDECLARED, Terms
from shared.errors import DeadlineExceeded
from shared.ids import new_id
from shared.masking import mask_text, secret_in
from shared.passport import Passport

USER_AGENT_LENGTH_MAX = 300
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)


@dataclass(kw_only=True)
class RequestContext:
    """The state of the request that this thread or greenlet serves."""

    request_id: str
    ip: str
    user_agent: str
    terms: Terms = UNDECLARED
    _caller: Caller | None = None
    _passport: Passport | None = None
    idempotency_key: str | None = None
    is_replayed: bool = False
    merchant_id: str | None = None
    problem_code: str | None = None
    error_class: str = ""
    started: float = field(default_factory=time.monotonic)
    deadline: float = field(default_factory=lambda: time.monotonic() + DEADLINE_SECONDS_DEFAULT)

    @property
    def passport(self) -> Passport:
        """The caller's passport for this request; that of nobody on a public route."""
        if self._passport is None:
            self._passport = self._new_passport()
        return self._passport

    @property
    def caller(self) -> Caller | None:
        """Who calls, once that is known."""
        return self._caller

    @caller.setter
    def caller(self, caller: Caller) -> None:
        self._caller, self._passport = caller, None

    def _new_passport(self) -> Passport:
        if self.caller is not None:
            return self.caller.passport(ip=self.ip, user_agent=self.user_agent, request_id=self.request_id)
        return Passport(
            actor_id="anonymous",
            actor_name="anonymous",
            actor_type="anonymous",
            permissions={},
            merchants=frozenset(),
            ip=self.ip,
            user_agent=self.user_agent,
            request_id=self.request_id,
        )

    def renew_deadline(self) -> None:
        """Give the request the time of its route from now on."""
        self.deadline = time.monotonic() + self.terms.deadline_seconds

    def seconds_left(self) -> float:
        """Return how long the request may still take. Raises: DeadlineExceeded when that is over."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left


def context() -> RequestContext:
    """Return the context of the request being served."""
    current: RequestContext = g.context
    return current


def begin(request: Request, trusted_proxies: tuple[IPv4Network | IPv6Network, ...]) -> RequestContext:
    """Make the context of a request that has just arrived."""
    given = request.headers.get("X-Request-ID", "")
    g.context = RequestContext(
        request_id=given if _SANE_REQUEST_ID.fullmatch(given) and not secret_in(given) else new_id("req"),
        ip=client_ip(request.remote_addr or "", request.headers.getlist("X-Forwarded-For"), trusted_proxies),
        user_agent=mask_text(request.headers.get("User-Agent", "")[:USER_AGENT_LENGTH_MAX]),
    )
    return context()


def client_ip(peer: str, forwarded_for: list[str], trusted_proxies: tuple[IPv4Network | IPv6Network, ...]) -> str:
    """Return the client's address: the peer's, or what trusted proxies say, read from the nearest outwards.

    Whatever a proxy that we do not trust has written is a claim of the client, and is passed over.
    """
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
    address = peer
    while hops and _is_in(address, trusted_proxies):
        address = hops.pop()
    return address if _is_address(address) else peer


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(text: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    return _is_address(text) and any(ip_address(text) in network for network in networks)
