"""The client for addresses that people configure: it calls the public internet, and nothing of ours.

A host's name is resolved once and the connection goes to that very address, so that a name which leads elsewhere a
moment later leads nowhere. No redirect is followed, no proxy or netrc of the environment is taken, and an answer has a
size and a time that it may not pass. Source: RELIABILITY.md R32; `shared/addresses.py` says what is public.
"""

import http.client
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from shared.addresses import AddressRefused, Place, is_public, place_of

CONNECT_SECONDS_MAX = 3.0
ANSWER_SECONDS_MAX = 8.0
ANSWER_BYTES_MAX = 256 * 1024
_PIECE_BYTES = 16 * 1024
_AGENT = "Countinghouse"


class NoAnswer(Exception):
    """Nobody can say what the other side did: it was not reached, or did not answer properly in time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever its status is. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def send(
    method: str,
    url: str,
    *,
    allowed: frozenset[str],
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    seconds_max: float = ANSWER_SECONDS_MAX,
) -> Reply:
    """Call an address and return its answer. The query of the URL is sent as it is.

    allowed: the places beside public ones that may be called: `shared.addresses.allowed_places`.
    Raises: AddressRefused before anything is sent; NoAnswer.
    """
    base, _, query = url.partition("?")
    place = place_of(base, allowed)
    give_up_at = time.monotonic() + seconds_max
    address = _resolve(place)
    target = (place.path or "/") + (f"?{query}" if query else "")
    sent = {"Host": _host_header(place), "User-Agent": _AGENT, "Accept-Encoding": "identity", **(headers or {})}
    connection = _connection(place, address)
    try:
        connection.connect()
        with _ended_at(connection.sock, give_up_at):
            connection.request(method, target, body=body, headers=sent, preload_content=False, decode_content=False)
            answer = connection.getresponse()
            content = _read(answer)
        if time.monotonic() >= give_up_at:  # what was cut off looks to the reader as if it had ended
            raise NoAnswer(f"{place.host} answers too slowly")
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        raise NoAnswer(f"{place.host} did not answer: {type(error).__name__}") from error
    finally:
        connection.close()
    return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, content)


def _resolve(place: Place) -> str:
    """Return an address of the place. All of a name's addresses must be public: one that is not taints the name.

    Raises: NoAnswer, AddressRefused.
    """
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NoAnswer(f"{place.host} has no address") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses:
        raise NoAnswer(f"{place.host} has no address")
    if not place.is_named and not all(_is_public(address) for address in addresses):
        raise AddressRefused("It must name a public host.")
    return addresses[0]


def _is_public(address: str) -> bool:
    return "%" not in address and is_public(ipaddress.ip_address(address))


def _host_header(place: Place) -> str:
    host = f"[{place.host}]" if ":" in place.host else place.host
    is_usual = place.port == {"https": 443, "http": 80}[place.scheme]
    return host if is_usual else f"{host}:{place.port}"


def _connection(place: Place, address: str) -> HTTPConnection:
    """Return a connection, not yet made, to the address; its certificate must be the name's."""
    if place.scheme == "http":
        return HTTPConnection(address, place.port, timeout=CONNECT_SECONDS_MAX)
    return HTTPSConnection(
        address,
        place.port,
        timeout=CONNECT_SECONDS_MAX,
        cert_reqs="CERT_REQUIRED",
        ca_certs=certifi.where(),
        server_hostname=place.host,
        assert_hostname=place.host,
    )


@contextmanager
def _ended_at(connected: socket.socket, give_up_at: float) -> Iterator[None]:
    """Cut the connection when the time is over, however little and however steadily the other side sends."""
    connected.settimeout(max(give_up_at - time.monotonic(), 0.01))
    ending = threading.Timer(max(give_up_at - time.monotonic(), 0), _cut, [connected])
    ending.daemon = True
    ending.start()
    try:
        yield
    finally:
        ending.cancel()


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _read(answer: HTTPResponse) -> bytes:
    """Return an answer's body. Raises: NoAnswer for one that is too large, or was cut off."""
    content = b""
    while piece := answer.read(_PIECE_BYTES, decode_content=False):
        content += piece
        if len(content) > ANSWER_BYTES_MAX:
            raise NoAnswer(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
    if answer.length_remaining:
        raise NoAnswer("the answer was cut off")
    return content
