"""The client of configured addresses: pinned, bounded, and never led into our own network."""

import gzip
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared import outbound
from shared.addresses import AddressRefused
from shared.outbound import ANSWER_BYTES_MAX, NoAnswer, send

NOWHERE: frozenset[str] = frozenset()
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer, *, certificate: Path | None = None) -> Iterator[tuple[int, list[BaseHTTPRequestHandler]]]:
    """Serve answers on loopback. Yields: the port, and the requests that came."""
    seen: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self)
            answer(self)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port, seen
        server.shutdown()


def say(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def names(monkeypatch: pytest.MonkeyPatch, *answers: str | list[str]) -> list[str]:
    """Let every name lead to these addresses, one answer a question. Returns: what was asked."""
    asked: list[str] = []
    left, real = list(answers), socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *arguments: Any, **named: Any) -> list[Any]:
        if host[0].isdigit():
            return list(real(host, port, *arguments, **named))
        asked.append(host)
        answer = left.pop(0) if len(left) > 1 else left[0]
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ([answer] if isinstance(answer, str) else answer)
        ]

    monkeypatch.setattr(outbound.socket, "getaddrinfo", getaddrinfo)
    return asked


def test_place_that_the_operator_named_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serving(lambda handler: say(handler, 201, b"hello", **{"X-Word": "a"})) as (port, seen):
        place = f"127.0.0.1:{port}"
        reply = send("POST", f"http://{place}/pay?x=1", allowed=frozenset({place}), headers={"A": "b"}, body=b"{}")
    assert (reply.status, reply.body, reply.headers["x-word"]) == (201, b"hello", "a")
    assert (seen[0].path, seen[0].headers["Host"], seen[0].headers["A"]) == ("/pay?x=1", place, "b")


def test_place_nearby_that_nobody_named_is_never_connected_to() -> None:
    with serving(lambda handler: say(handler, 200)) as (port, seen):
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"):
            for scheme in ("http", "https"):
                with pytest.raises(AddressRefused):
                    send("GET", f"{scheme}://{host}:{port}/", allowed=frozenset({"127.0.0.1:1"}))
    assert seen == []


@pytest.mark.parametrize(
    "answer",
    [
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "::1",
        "::ffff:10.0.0.1",
        "fd00:ec2::254",
        ["93.184.216.34", "10.0.0.1"],
    ],
)
def test_name_that_leads_into_our_network_is_refused(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    names(monkeypatch, answer)
    connected = refused_connections(monkeypatch)
    with pytest.raises(AddressRefused):
        send("GET", "https://pay.example.com/", allowed=NOWHERE)
    assert connected == []


def test_name_that_leads_elsewhere_a_moment_later_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names(monkeypatch, "93.184.216.34", "127.0.0.1")
    connected = refused_connections(monkeypatch)
    with pytest.raises(NoAnswer):
        send("GET", "https://pay.example.com/", allowed=NOWHERE)
    assert (asked, connected) == (["pay.example.com"], [("93.184.216.34", 443)])


def refused_connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Refuse every connection. Returns: where they went."""
    connected: list[Any] = []

    def create_connection(address: Any, **_: Any) -> Any:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(outbound.socket, "create_connection", create_connection)
    return connected


def test_next_address_is_tried_where_the_first_takes_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    with serving(lambda handler: say(handler, 200, b"here")) as (port, _):
        place = f"pay.example.com:{port}"
        assert send("GET", f"http://{place}/", allowed=frozenset({place})).body == b"here"
    many = [f"93.184.216.{n}" for n in range(20)]
    names(monkeypatch, many)
    connected = refused_connections(monkeypatch)
    with pytest.raises(NoAnswer):
        send("GET", "https://pay.example.com/", allowed=NOWHERE)
    assert [host for host, _ in connected] == many[: outbound.ADDRESSES_MAX]


def test_name_that_takes_long_to_be_found_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        time.sleep(2)
        return []

    monkeypatch.setattr(outbound.socket, "getaddrinfo", getaddrinfo)
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        send("GET", "https://pay.example.com/", allowed=NOWHERE, seconds_max=0.2)
    assert time.monotonic() - began < 1.5


def test_redirect_is_an_answer_and_is_not_followed() -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        say(handler, 302, Location="http://169.254.169.254/latest/meta-data/")

    with serving(redirect) as (port, seen):
        place = f"127.0.0.1:{port}"
        assert send("GET", f"http://{place}/", allowed=frozenset({place})).status == 302
    assert len(seen) == 1


def test_answer_that_is_too_large_is_given_up() -> None:
    with serving(lambda handler: say(handler, 200, b"x" * (ANSWER_BYTES_MAX + 1))) as (port, _):
        place = f"127.0.0.1:{port}"
        with pytest.raises(NoAnswer, match="larger"):
            send("GET", f"http://{place}/", allowed=frozenset({place}))


@pytest.mark.parametrize("dripping", ["status line", "headers", "body"])
def test_answer_that_drips_is_given_up(dripping: str) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        start = {"status line": b"HTTP/1.1 200 O", "headers": b"HTTP/1.1 200 OK\r\nA: "}
        handler.wfile.write(start.get(dripping, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"))
        with suppress(OSError):
            for _ in range(100):
                handler.wfile.write(b"x")
                time.sleep(0.05)

    with serving(drip) as (port, _):
        place, began = f"127.0.0.1:{port}", time.monotonic()
        with pytest.raises(NoAnswer):
            send("GET", f"http://{place}/", allowed=frozenset({place}), seconds_max=0.3)
        assert time.monotonic() - began < 1.5


# What the ledger runs on: a wait for one thing must not be a wait for each of its parts there either.
_UNDER_EVENTLET = """
import eventlet
eventlet.monkey_patch()
import sys, time
from shared.outbound import NoAnswer, send
began = time.monotonic()
try:
    send("GET", f"https://{sys.argv[1]}/", allowed=frozenset({sys.argv[1]}), seconds_max=0.5)
except NoAnswer:
    print("no answer", time.monotonic() - began < 1.5)
"""


@pytest.mark.parametrize("runs_on", ["threads", "eventlet"])
def test_handshake_that_drips_is_given_up(runs_on: str) -> None:
    def drip(connected: socket.socket) -> None:
        # The head of a record of 16 KB, as a server's certificates come in, and then a byte now and then.
        with suppress(OSError):
            connected.sendall(b"\x16\x03\x03\x40\x00")
            for _ in range(60):
                connected.sendall(b"x")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=lambda: drip(server.accept()[0]), daemon=True).start()
        if runs_on == "eventlet":
            command = [sys.executable, "-c", _UNDER_EVENTLET, place]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
            assert done.stdout == "no answer True\n"
        else:
            began = time.monotonic()
            with pytest.raises(NoAnswer):
                send("GET", f"https://{place}/", allowed=frozenset({place}), seconds_max=0.5)
            assert time.monotonic() - began < 1.5


def test_packed_answer_stays_packed() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    with serving(lambda handler: say(handler, 200, bomb, **{"Content-Encoding": "gzip"})) as (port, seen):
        place = f"127.0.0.1:{port}"
        assert send("GET", f"http://{place}/", allowed=frozenset({place})).body == bomb
    assert seen[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("length", ["3", "-1", "1e9", "99999999999999999999", ""])
def test_length_that_lies_makes_no_answer_longer(length: str) -> None:
    with serving(lambda handler: say(handler, 200, b"four", **{"Content-Length": length})) as (port, _):
        place = f"127.0.0.1:{port}"
        with suppress(NoAnswer):
            assert b"four".startswith(send("GET", f"http://{place}/", allowed=frozenset({place})).body)


@pytest.mark.parametrize("head", [b"Content-Length: 10\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nA\r\n"])
def test_answer_that_is_cut_off_is_no_answer(head: bytes) -> None:
    def cut_off(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n" + head + b"half")

    with serving(cut_off) as (port, _):
        place = f"127.0.0.1:{port}"
        with pytest.raises(NoAnswer):
            send("GET", f"http://{place}/", allowed=frozenset({place}))


def test_silence_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(NoAnswer):
            send("GET", f"http://{place}/", allowed=frozenset({place}), seconds_max=0.2)


def test_closed_port_is_no_answer_and_tells_no_inner_detail() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(NoAnswer) as refused:
        send("GET", f"http://{place}/secret-path", allowed=frozenset({place}))
    assert "secret-path" not in str(refused.value)


def certificate(folder: Path, name: str) -> Path:
    """Write a certificate of a name that signs itself, and its key. Returns: the file of both."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return file


@pytest.mark.parametrize(
    ("certified", "is_trusted", "is_answered"),
    [("pay.example.com", True, True), ("other.example.com", True, False), ("pay.example.com", False, False)],
)
def test_certificate_must_be_trusted_and_the_names_though_the_address_is_pinned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certified: str, is_trusted: bool, is_answered: bool
) -> None:
    file = certificate(tmp_path, certified)
    if is_trusted:
        monkeypatch.setattr(outbound.certifi, "where", lambda: str(file))
    names(monkeypatch, "127.0.0.1")
    with serving(lambda handler: say(handler, 200, b"sealed"), certificate=file) as (port, seen):
        place = f"pay.example.com:{port}"
        if is_answered:
            assert send("GET", f"https://{place}/", allowed=frozenset({place})).body == b"sealed"
            assert seen[0].headers["Host"] == place
        else:
            with pytest.raises(NoAnswer):
                send("GET", f"https://{place}/", allowed=frozenset({place}))
            assert seen == []
