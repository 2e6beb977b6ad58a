"""The client for addresses that people configure: it calls the public internet, and nothing of ours.

A host's name is resolved once and the connection goes to those very addresses, so that a name which leads elsewhere a
moment later leads nowhere. No redirect is followed, no proxy or netrc of the environment is taken, and an answer has a
size and a time that it may not pass: the name's lookup and the seal's handshake are part of it.
Source: RELIABILITY.md R32; `shared/addresses.py` says what is public.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache

import certifi

from shared.addresses import AddressRefused, Place, is_public, place_of

CONNECT_SECONDS_MAX = 3.0
ANSWER_SECONDS_MAX = 8.0
ANSWER_BYTES_MAX = 256 * 1024
ADDRESSES_MAX = 4
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
    seconds_max: for all of it.
    Raises: AddressRefused before anything is sent; NoAnswer.
    """
    base, _, query = url.partition("?")
    place = place_of(base, allowed)
    give_up_at = time.monotonic() + seconds_max
    addresses = _resolve(place, give_up_at)
    target = (place.path or "/") + (f"?{query}" if query else "")
    sent = {"Host": _host_header(place), "User-Agent": _AGENT, "Accept-Encoding": "identity", **(headers or {})}
    try:
        with (
            _connect(addresses, place.port, give_up_at) as connected,
            _ended_at(connected, give_up_at) as is_over,
            _sealed(connected, place) as stream,
        ):
            reply = _exchange(stream, place, method, target, sent, body)
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise NoAnswer(f"{place.host} did not answer: {type(error).__name__}") from error
    if is_over.is_set():  # what was cut off looks to the reader as if it had ended
        raise NoAnswer(f"{place.host} answers too slowly")
    return reply


def _resolve(place: Place, give_up_at: float) -> list[str]:
    """Return the addresses of the place. All of them must be public: one that is not taints the name.

    Raises: NoAnswer, AddressRefused.
    """
    found: list[str] = []

    def look_up() -> None:
        with suppress(OSError, UnicodeError):
            entries = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(entry[4][0]) for entry in entries))

    # Resolvers have times of their own, which may be longer than ours.
    looking = threading.Thread(target=look_up, daemon=True)
    looking.start()
    looking.join(max(give_up_at - time.monotonic(), 0))
    if looking.is_alive() or not found:
        raise NoAnswer(f"{place.host} has no address")
    if not place.is_named and not all(_is_public(address) for address in found):
        raise AddressRefused("It must name a public host.")
    return found[:ADDRESSES_MAX]


def _is_public(address: str) -> bool:
    return "%" not in address and is_public(ipaddress.ip_address(address))


def _host_header(place: Place) -> str:
    host = f"[{place.host}]" if ":" in place.host else place.host
    is_usual = place.port == {"https": 443, "http": 80}[place.scheme]
    return host if is_usual else f"{host}:{place.port}"


def _connect(addresses: list[str], port: int, give_up_at: float) -> socket.socket:
    """Return a connection to the first of the addresses that takes one. Raises: OSError."""
    refused: OSError = TimeoutError()
    for address in addresses:
        seconds = min(CONNECT_SECONDS_MAX, give_up_at - time.monotonic())
        if seconds <= 0:
            break
        try:
            return socket.create_connection((address, port), timeout=seconds)
        except OSError as error:
            refused = error
    raise refused


@contextmanager
def _ended_at(connected: socket.socket, give_up_at: float) -> Iterator[threading.Event]:
    """Cut the connection when the time is over, however little and however steadily the other side sends.

    Yields: what is set when it was cut.
    """
    seconds = max(give_up_at - time.monotonic(), 0.01)
    connected.settimeout(seconds)
    is_over = threading.Event()
    with connected.dup() as same:  # the first is given away to what seals it

        def end() -> None:
            is_over.set()
            with suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)

        ending = threading.Timer(seconds, end)
        ending.daemon = True
        ending.start()
        try:
            yield is_over
        finally:
            ending.cancel()


@contextmanager
def _sealed(connected: socket.socket, place: Place) -> Iterator[socket.socket]:
    """Give the connection as it is spoken over: for https sealed, and the certificate must be the name's."""
    if place.scheme == "http":
        yield connected
        return
    with _tls(certifi.where()).wrap_socket(connected, server_hostname=place.host) as stream:
        yield stream


@cache
def _tls(trusted: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=trusted)


def _exchange(
    stream: socket.socket, place: Place, method: str, target: str, headers: Mapping[str, str], body: bytes | None
) -> Reply:
    connection = http.client.HTTPConnection(place.host, place.port)
    connection.sock = stream
    connection.request(method, target, body=body, headers=headers)
    answer = connection.getresponse()
    content = _read(answer)
    return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, content)


def _read(answer: http.client.HTTPResponse) -> bytes:
    """Return an answer's body as it came, packed or not. Raises: NoAnswer for one too large, or that was cut off."""
    content = b""
    while piece := answer.read(_PIECE_BYTES):
        content += piece
        if len(content) > ANSWER_BYTES_MAX:
            raise NoAnswer(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
    if answer.length:
        raise NoAnswer("the answer was cut off")
    return content
