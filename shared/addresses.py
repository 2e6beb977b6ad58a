"""Which addresses this system may call by itself: public ones, and those that its operator named.

Source: RELIABILITY.md R32; OWASP API7:2023.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

PORTS: Final = {"http": 80, "https": 443}
URL_LENGTH_MAX: Final = 300
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
# What Python takes for global, and is not: protocol assignments (Oracle's metadata service and Teredo among them),
# relays to IPv6, documentation, and the address by which Azure's hosts speak to what runs on them.
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2002::/16", "3fff::/20")
)
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(Exception):
    """This address is not one that we call."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads. `is_named`: the operator's OUTBOUND_ALLOW names it, so that it may be nearby and unsealed."""

    scheme: str
    host: str
    port: int
    path: str
    is_named: bool


def allowed_places(text: str) -> frozenset[str]:
    """Return the places that OUTBOUND_ALLOW names: `host:port`, with commas between; IPv6 as `[::1]:8443`."""
    return frozenset(word.strip().lower() for word in text.split(",") if word.strip())


def place_of(url: str, allowed: frozenset[str]) -> Place:
    """Return where a URL leads, as far as it can be told without asking for the host's address.

    Raises: AddressRefused for what is no address of a platform, for plain http that nobody named, and for a literal
    address that is not public.
    """
    if len(url) > URL_LENGTH_MAX or not url.isascii() or any(c <= " " or c in "\\\x7f" for c in url):
        raise AddressRefused("It is not a URL.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise AddressRefused("It is not a URL.") from None
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in PORTS or not host:
        raise AddressRefused("It must begin with https:// and name a host.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise AddressRefused("It must hold no user, no password, no query and no fragment.")
    if port == 0 or not (_is_address(host) if "[" in parts.netloc else _NAME.fullmatch(host)):
        raise AddressRefused("It must name a host, and a port from 1 to 65535 where it names one.")
    port = port or PORTS[parts.scheme]
    is_named = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") in allowed
    if not is_named:
        if parts.scheme != "https":
            raise AddressRefused("It must begin with https://.")
        _refuse_near_literal(host)
    return Place(parts.scheme, host, port, parts.path.rstrip("/"), is_named)


def _refuse_near_literal(host: str) -> None:
    if _is_address(host):
        if not is_public(ipaddress.ip_address(host)):
            raise AddressRefused("It must name a public host.")
    # Resolvers take 2130706433, 0x7f.1 and 0177.0.0.1 for addresses; no platform's name ends in a number.
    elif host.rpartition(".")[2][:1].isdigit() or "." not in host:
        raise AddressRefused("It must name a public host.")


def _is_address(host: str) -> bool:
    try:
        return "%" not in host and ipaddress.ip_address(host) is not None
    except ValueError:
        return False


def is_public(address: IpAddress) -> bool:
    """Return whether an address is one of the public internet, whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped
        if address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(wrapped)
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
