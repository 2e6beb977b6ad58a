"""Secrets are sent into every field of every route, errors included; afterwards they lie nowhere in clear.

The routes and their fields are read off the OpenAPI document, so that a new one is covered by being there. Searched:
dumps of all databases, every file of the running system (the broker's data, the logs of all processes, the gateway's
spool, PostgreSQL's own files, its write-ahead log included), exports, and what Telegram received. Only the files that
hold the system's keys and first password by design are passed over.
"""

import base64
import itertools
import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from psycopg import sql

from operations.databases import service_database
from operations.keys import bot_token
from operations.processes import simulator_url
from operations.services import SERVICES
from operations.system import System
from services.ledger.signatures import sign
from shared.masking import is_foreign, is_secret
from simulators.telegram.server import ControlClient
from tests.e2e.conftest import ANSWER_SECONDS_MAX, Api, Platform, eventually, started_system
from tests.e2e.requests_of import JSON, Document, Request, name_of, places, put
from tests.e2e.test_cards import make_card, new_number
from tests.e2e.test_telegram import bind, new_chat_id

WRITING = ("post", "put", "patch", "delete")
SESSION_IS_OVER = ("invalid_token", "token_expired", "session_over", "session_ended")
HOLDS_KEYS_BY_DESIGN = ("secrets.json", "first-sign-in.json", "keys", "run")
# Typed into the field beside it, as people do. A password anywhere else cannot be known by its looks (decision 0018).
BESIDE_A_PASSWORD = ("username", "otp")


class Canaries:
    """The secrets, by name, and somebody who may do everything, signed in with some of them."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.password, self.wrong_password = (f"Canary-{secrets.token_urlsafe(12)}" for _ in range(2))
        self.secrets: dict[str, str] = {
            "card number": new_number(),
            "bot token": bot_token(platform.system.home),
            "password": self.password,
            "wrong password": self.wrong_password,
        }
        self.username, self.another_name = (f"canary-{secrets.token_hex(4)}" for _ in range(2))
        self._make_person()
        self._make_api_key()
        self._make_second_factor()
        self._make_channels()
        self.card_id = make_card(self.api, number=self.secrets["card number"])["id"]

    def _make_person(self) -> None:
        person = {"username": self.username, "display_name": "x", "roles": ["administrator"], "merchants": "all"}
        self.platform.admin.post("/users", person | {"username": self.another_name})
        made = self.platform.admin.post("/users", person).json()
        self.secrets["temporary password"] = made["temporary_password"]
        self.user_id = made["id"]
        first = self.platform.anonymous.signed_in(self.username, made["temporary_password"])
        change = {"current_password": made["temporary_password"], "new_password": self.password}
        assert first.post("/auth/password", change).status_code < 300
        self.sign_in()

    def sign_in(self) -> None:
        """Sign in anew, as after a route that ended the session."""
        credentials = {"username": self.username, "password": self.password}

        def tokens_of_login() -> dict[str, Any]:
            answer = self.platform.anonymous.post("/auth/login", credentials, key="")
            return dict(answer.json()) if answer.status_code == 200 else {}

        tokens = eventually(tokens_of_login, within_seconds=60)  # wrong passwords lock the name for a while
        again = self.platform.anonymous.post("/auth/refresh", {"refresh_token": tokens["refresh_token"]}, key="").json()
        self.secrets |= {
            "access token": tokens["access_token"],
            "refresh token": tokens["refresh_token"],
            "second refresh token": again["refresh_token"],
        }
        self.api = Api(self.platform.system.url, again["access_token"])

    def _make_api_key(self) -> None:
        body = {"name": "canary", "roles": ["auditor"], "merchants": "all"}
        made = self.api.post("/api-keys", body)
        assert made.status_code == 201, made.text
        self.secrets["API key"] = made.json()["secret"]
        assert Api(self.platform.system.url, self.secrets["API key"]).get("/me").status_code == 200

    def _make_second_factor(self) -> None:
        """Enrol somebody else in two-factor sign-in, so that its secret and codes are there to be found."""
        somebody = self.platform.person(roles=["auditor"], merchants="all")
        answer = somebody.post("/auth/totp")
        assert answer.status_code == 200, answer.text
        enrolled = answer.json()
        [secret] = re.findall(r"secret=([A-Z2-7]+)", enrolled["otpauth_uri"])
        self.secrets["TOTP secret"] = secret
        self.secrets |= {f"recovery code {n}": code for n, code in enumerate(enrolled["recovery_codes"])}

    def _make_channels(self) -> None:
        """Register platforms with secrets, change one, and have a callback signed with it."""
        query, callback, gone = (f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}" for _ in range(3))
        key = f"sk_live_{secrets.token_hex(16)}"
        self.secrets |= {
            "query secret": query,
            "callback secret": callback,
            "old callback secret": gone,
            "Stripe key": key,
        }
        of_http = {"base_url": "https://pay.example.com", "query_secret": query, "callback_secrets": [gone]}
        of_stripe = {"api_key": key, "callback_secrets": [gone]}
        for code, kind, config in (("canary-http", "http", of_http), ("canary-stripe", "stripe", of_stripe)):
            made = self.api.post("/channels", {"code": code, "name": code, "kind": kind, "config": config})
            assert made.status_code == 201, made.text
            change = {"config": {"callback_secrets": [callback]}, "reason": "It was known to too many."}
            assert self.api.patch(f"/channels/{code}", change).status_code == 200
            said = {"order_no": "x", "upstream_ref": "y", "status": "success", "amount": "1.00", "currency": "CNY"}
            for secret, status in ((callback, 200), (gone, 401)):
                body = json.dumps(said).encode()
                headers = sign(secret, message_id=secrets.token_hex(8), body=body, at=datetime.now(UTC))
                url = f"{self.platform.system.url}/api/v1/channels/{code}/callbacks"
                assert requests.post(url, data=body, headers=headers, timeout=30).status_code == status

    def recognizable(self) -> dict[str, str]:
        """Return those that are known by their looks, which may be put anywhere."""
        names = ("card number", "bot token", "access token", "second refresh token", "API key")
        return {name: self.secrets[name] for name in names}


@pytest.fixture(scope="module")
def own_system() -> Iterator[System]:
    """A system that is left full of what was sent to every route of it."""
    with started_system() as system:
        yield system


@pytest.fixture
def platform(own_system: System) -> Platform:
    """That system, ready."""
    own_system.wait_ready()
    return Platform(own_system)


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """What the names of fields mean, so that requests fit; each test fills in its own ids."""
    return {
        "currency": "CNY",
        "amount": "1.00",
        "merchants": "all",
        "roles": ["auditor"],
        "limit": 1,
        "email": "canary@example.com",
        "grants": [],
        "permissions": {"cards": "read"},
        "expires_at": "2099-01-01T00:00:00Z",
        "expiry": "2029-05",
        "delimiter": ",",
        "decimal_sign": ".",
        "statuses": {"PAID": "success"},
        # A common password is refused, so that nobody's is changed to it.
        "new_password": "password1234",
    }


def send(canaries: Canaries, request: Request, **headers: str) -> requests.Response:
    body = request.body if request.content_type != JSON else None
    data = json.dumps(request.body) if request.content_type == JSON and request.body is not None else body
    sent = {"Content-Type": request.content_type, "Idempotency-Key": secrets.token_hex(8)} | headers
    if not (isinstance(data, str | bytes) or data is None):
        data = json.dumps(data)
    url = f"{canaries.platform.system.url}{request.path}"
    answer = canaries.api.http.request(
        request.method, url, params=request.query, data=data, headers=sent, timeout=ANSWER_SECONDS_MAX
    )
    if answer.status_code == 401 and answer.json()["code"] in SESSION_IS_OVER:
        canaries.sign_in()
    return answer


def with_secrets(document: Document, canaries: Canaries) -> Iterator[Request]:
    """Yield every operation with every secret in every place where it may be put."""
    for request in document.requests(WRITING):
        for name, secret in canaries.recognizable().items():
            for parameter in document.path_parameters(request):
                if not (name == "card number" and is_foreign(parameter)):
                    yield document.filled(request, **{parameter: secret})
        whole = document.filled(request)
        if whole.content_type != JSON:
            yield from _with_secrets_in_cells(whole, canaries)
            continue
        for at in places(whole.body):
            for name, secret in canaries.recognizable().items():
                if name == "card number" and (is_foreign(name_of(at)) or name_of(at) == "number"):
                    continue
                yield _with(whole, at, secret)
            is_beside_one = name_of(at) in BESIDE_A_PASSWORD and any(map(is_secret, whole.body))
            if is_secret(name_of(at)) or is_beside_one:
                for password in (canaries.password, canaries.wrong_password):
                    yield _with(whole, at, password)
        if isinstance(whole.body, dict):
            for secret in canaries.recognizable().values():
                yield Request(**vars(whole) | {"body": whole.body | {secret: secret}, "where": "a field's name"})
    for request in document.requests(("get",)):
        for parameter in document.query_parameters(request):
            for secret in canaries.recognizable().values():
                yield Request(**vars(document.filled(request)) | {"query": {parameter: secret}, "where": parameter})
        for parameter in document.path_parameters(request):
            for secret in canaries.recognizable().values():
                yield document.filled(request, **{parameter: secret})


def _with_secrets_in_cells(request: Request, canaries: Canaries) -> Iterator[Request]:
    """Yield a file with every secret in every cell, or as a line of its own where the file has no columns."""
    header, *lines = str(request.body).splitlines() or [""]
    names = header.split(",")
    for name, secret in canaries.recognizable().items():
        yield Request(**vars(request) | {"body": f"{secret}\n{secret}\n", "where": "a line"})
        for line, column in itertools.product(lines, range(len(names))):
            if name == "card number" and (names[column] == "number" or is_foreign(names[column])):
                continue
            cells = (line.split(",") + [""] * len(names))[: len(names)]
            cells[column] = secret
            yield Request(**vars(request) | {"body": f"{header}\n{','.join(cells)}\n", "where": names[column]})


def _with(request: Request, at: tuple[str | int, ...], secret: str) -> Request:
    return Request(**vars(request) | {"body": put(request.body, at, secret), "where": name_of(at)})


def share_of_fitting_requests(document: Document, canaries: Canaries) -> float:
    """Send each request without a secret. Returns: how many of them have the right shape, of 1."""
    has_fitted = []
    for request in document.requests(WRITING):
        if request.body is not None and not request.path.endswith(("/disable", "/reset-password")):
            answer = send(canaries, document.filled(request))
            has_fitted.append(answer.status_code < 400 or answer.json()["code"] != "invalid_request")
    return sum(has_fitted) / len(has_fitted)


def send_in_headers_and_broken_bodies(canaries: Canaries) -> None:
    """Send the secrets where no schema looks: headers, bodies that are no JSON, credentials of other kinds."""
    url = f"{canaries.platform.system.url}/api/v1"
    for secret in canaries.secrets.values():
        for headers in (
            {"Authorization": f"Bearer {secret}x"},
            {"Authorization": f"Basic {base64.b64encode(f'x:{secret}'.encode()).decode()}"},
            {"Cookie": f"session={secret}", "Referer": f"https://x.example/?t={secret}"},
        ):
            requests.get(f"{url}/me", headers=headers, timeout=ANSWER_SECONDS_MAX)
        for kind in (JSON, "text/csv", "text/plain", "application/x-www-form-urlencoded"):
            for path in ("/cards", "/auth/login", "/balance-changes"):
                headers = {"Content-Type": kind, "Idempotency-Key": secrets.token_hex(8)}
                canaries.api.http.post(f"{url}{path}", f'{{"a": {secret}', headers=headers, timeout=ANSWER_SECONDS_MAX)
        login = {"username": canaries.another_name, "password": f"{secret}!"}
        canaries.platform.anonymous.post("/auth/login", login, key="")
    for secret in canaries.recognizable().values():
        headers = {"X-Request-ID": secret[:128], "User-Agent": f"x {secret}", "X-Forwarded-For": secret}
        canaries.api.http.get(f"{url}/me", headers=headers, timeout=ANSWER_SECONDS_MAX)
        if len(secret) <= 255:
            canaries.api.post("/cards", {"holder_name": "x", "currency": "CNY", "bin": "411111"}, key=secret)


def use_the_card(canaries: Canaries) -> None:
    """Do with the number what is allowed: create again, search, reveal, look it up where it does not belong."""
    number, card_id = canaries.secrets["card number"], canaries.card_id
    assert canaries.api.post("/cards", {"number": number, "holder_name": "x", "currency": "CNY"}).status_code == 409
    assert canaries.api.post("/cards/search", {"number": number}).json()["items"]
    revealed = canaries.api.post(f"/cards/{card_id}/reveal", {"reason": "The holder asked."})
    assert revealed.json()["number"] == number
    canaries.api.get("/cards", q=number)
    canaries.api.post(f"/cards/{card_id}/freeze", {"reason": f"Lost {number}."})


def forms_of(secret: str) -> set[str]:
    """Return how a secret may stand somewhere: as it is, in groups, as hexadecimal digits, as base64."""
    forms = {secret, secret.encode().hex(), base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]}
    if secret.isdigit():
        forms |= {sign.join(secret[n : n + 4] for n in range(0, len(secret), 4)) for sign in " -"}
    return forms | {secret.casefold()}  # names are compared without their case


def dump_databases(platform: Platform, folder: Path) -> None:
    """Write every row of every table of every service's database into files."""
    for service in SERVICES:
        database = service_database(platform.system.home, platform.system.servers.database_url, service)
        with (
            psycopg.connect(database.owner_url) as connection,
            (folder / f"{service}.sql").open("wb") as file,
        ):
            tables = connection.execute(
                "select c.oid::regclass::text, n.nspname, c.relname from pg_class c join pg_namespace n"
                " on n.oid = relnamespace where relkind = 'r' and nspname !~ '^pg_|^information_schema$'"
            ).fetchall()
            assert tables
            for _, schema, table in tables:
                copying = sql.SQL("copy (select * from {}) to stdout").format(sql.Identifier(schema, table))
                with connection.cursor().copy(copying) as rows:
                    for row in rows:
                        file.write(row)


def export_everything(document: Document, canaries: Canaries, folder: Path) -> int:
    """Write every list that there is as CSV. Returns: how many."""
    count = 0
    for request in document.requests(("get",)):
        whole = document.filled(request)
        answer = send(canaries, whole, Accept="text/csv")
        if answer.headers["Content-Type"].startswith("text/csv"):
            (folder / f"{whole.operation_id}.csv").write_bytes(answer.content)
            count += 1
    return count


def found_in(folder: Path, texts: set[str], *, but_not: tuple[str, ...] = ()) -> list[str]:
    """Return the files below a folder that hold one of these texts, and what stands around it."""
    (patterns := folder.parent / "patterns").write_text("\n".join(texts) + "\n")
    excluded = [f"--exclude={name}" for name in but_not] + [f"--exclude-dir={name}" for name in but_not]
    grep = ["grep", "-raoF", "-m1", *excluded, "-f", str(patterns), str(folder)]
    found = subprocess.run(grep, capture_output=True).stdout.decode(errors="replace").splitlines()
    patterns.unlink()
    return [_around(Path(path), text) for path, _, text in (line.partition(":") for line in found)]


def _around(path: Path, text: str) -> str:
    content = path.read_bytes()
    at = content.find(text.encode())
    return f"{path}: {content[max(at - 300, 0) : at + 100]!r}"


@pytest.mark.timeout(900)
def test_no_secret_lies_anywhere_in_clear(platform: Platform, known: dict[str, Any], tmp_path: Path) -> None:
    canaries = Canaries(platform)
    simulator, chat_id, merchant_id = (
        ControlClient(simulator_url(platform.system.home)),
        new_chat_id(),
        platform.merchant(),
    )
    binding_id = bind(canaries.api, merchant_id, chat_id)
    other = make_card(canaries.api, merchant_id=merchant_id)["id"]
    _, somebody_id = platform.person_and_id(roles=["auditor"], merchants="all")
    ids = {"card_id": other, "merchant_id": merchant_id, "user_id": somebody_id, "binding_id": binding_id}
    routes = requests.get(f"{platform.system.url}/openapi.json", timeout=ANSWER_SECONDS_MAX).json()
    document = Document(routes, known | ids | {"chat_id": str(chat_id)})

    # Else it would be something else than the secret that is refused.
    assert share_of_fitting_requests(document, canaries) > 0.8
    use_the_card(canaries)
    send_in_headers_and_broken_bodies(canaries)
    for n, request in enumerate(with_secrets(document, canaries)):
        answer = send(canaries, request)
        where = f"{request.method} {request.path} {request.where}"
        assert answer.status_code < 500 or answer.status_code == 503, f"{where}: {answer.text}"
        assert n < 20_000, "there are too many to send them all"
    assert n > 500
    canaries.sign_in()
    platform.recharge(merchant_id, "u1", "20000.00")
    eventually(
        lambda: canaries.api.get("/logs", resource_id=canaries.card_id, action="cards.reveal_card").json()["items"]
    )

    dumps, exports, received = (tmp_path / name for name in ("dumps", "exports", "telegram"))
    for folder in (dumps, exports, received):
        folder.mkdir()
    dump_databases(platform, dumps)
    assert export_everything(document, canaries, exports) > 10
    (received / "messages.json").write_text(json.dumps(simulator.messages(None)))
    home = platform.system.home.path
    # What may be seen is found: the search looks where things are.
    assert found_in(dumps, {canaries.card_id, canaries.card_id.encode().hex()})
    assert found_in(exports, {canaries.card_id})
    assert found_in(home / "servers" / "rabbitmq", {canaries.card_id})
    assert found_in(home / "logs", {'"service"'})
    for name, secret in canaries.secrets.items():
        for folder in (dumps, exports, received):
            assert found_in(folder, forms_of(secret)) == [], name
        assert found_in(home, forms_of(secret), but_not=HOLDS_KEYS_BY_DESIGN) == [], name
