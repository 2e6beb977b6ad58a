"""A client of the gateway as a program of the platform would have it: signs in, repeats what may be repeated."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

TIMEOUT_SECONDS = 35
RETRY_SECONDS_MAX = 120.0
BACKOFF_SECONDS_MAX = 5.0
PAGE_LIMIT = 500
REPEATED_STATUSES = (429, 500, 502, 503, 504)


class GatewayRefused(Exception):
    """The gateway refused, and would refuse again."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('code', '')}: {problem.get('detail', problem)}")
        self.status = status
        self.problem = problem


class GatewayUnreachable(Exception):
    """The gateway gave no final answer in all the time that it had; the same key may be tried again."""


@dataclass(frozen=True)
class SignIn:
    """Where the gateway is and who signs in: by name and password, or, as a program does, by an API key."""

    url: str
    username: str = ""
    password: str = ""
    api_key: str = ""

    @classmethod
    def read(cls, path: str | Path) -> "SignIn":
        """Read the file that `./countinghouse up` leaves: first-sign-in.json."""
        content = json.loads(Path(path).read_text())
        return cls(url=content["url"], username=content["username"], password=content["password"])


@dataclass(frozen=True)
class Reply:
    """A successful answer."""

    status: int
    body: Any
    is_replayed: bool


class GatewayClient:
    """Calls the gateway's API as one user. Not for several threads at once."""

    def __init__(self, sign_in: SignIn, *, retry_seconds_max: float = RETRY_SECONDS_MAX) -> None:
        self._sign_in = sign_in
        self._base = f"{sign_in.url.rstrip('/')}/api/v1"
        self._retry_seconds_max = retry_seconds_max
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return self._sign_in.url

    def get(self, path: str, **query: Any) -> Any:
        """Get a resource. Raises: GatewayRefused, GatewayUnreachable."""
        return self._request("GET", path, query=query).body

    def items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Get all items of a list, page after page."""
        cursor = None
        while True:
            page = self.get(path, limit=PAGE_LIMIT, **query | ({"cursor": cursor} if cursor else {}))
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def post(self, path: str, body: dict[str, Any] | None = None, *, key: str | None = None) -> Reply:
        """Post once, under an idempotency key; it is repeated with the same key until the answer is final.

        Raises: GatewayRefused, GatewayUnreachable.
        """
        return self._request("POST", path, body=body, key=key)

    def put(self, path: str, body: dict[str, Any]) -> Reply:
        """Put a resource. Raises: GatewayRefused, GatewayUnreachable."""
        return self._request("PUT", path, body=body)

    def patch(self, path: str, body: dict[str, Any]) -> Reply:
        """Change a resource. Raises: GatewayRefused, GatewayUnreachable."""
        return self._request("PATCH", path, body=body)

    def upload(self, path: str, content: bytes, *, headers: dict[str, str], **query: Any) -> Reply:
        """Post a body as it is, repeated until the answer is final. Raises: GatewayRefused, GatewayUnreachable."""
        return self._request("POST", path, query=query, content=content, headers=headers)

    def delete(self, path: str) -> Reply:
        """Delete a resource. Raises: GatewayRefused, GatewayUnreachable."""
        return self._request("DELETE", path)

    def twin(self) -> "GatewayClient":
        """Return another client of the same user, for another thread, with the token that this one has."""
        twin = GatewayClient(self._sign_in, retry_seconds_max=self._retry_seconds_max)
        twin._session.headers.update(self._session.headers)
        return twin

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        key: str | None = None,
    ) -> Reply:
        headers = (headers or {}) | ({"Idempotency-Key": key} if key else {})
        give_up_at = time.monotonic() + self._retry_seconds_max
        backoff_seconds = 0.2
        while True:
            try:
                response = self._send(method, path, params=query, json=body, data=content, headers=headers)
                trouble = _trouble(response)
            except requests.RequestException as error:
                response, trouble = None, type(error).__name__
            if response is not None and trouble is None:
                return _reply(response)
            asked_seconds = float(response.headers.get("Retry-After", 0)) if response is not None else 0
            if time.monotonic() + asked_seconds > give_up_at:
                raise GatewayUnreachable(f"{method} {path}: {trouble}")
            time.sleep(max(asked_seconds, backoff_seconds))
            backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        if self._sign_in.api_key:
            self._session.headers["Authorization"] = f"Bearer {self._sign_in.api_key}"
        if "Authorization" not in self._session.headers:
            refused = self._log_in()
            if refused is not None:
                return refused
        url = f"{self._base}{path}"
        response = self._session.request(method, url, timeout=TIMEOUT_SECONDS, **arguments)
        if (
            response.status_code == 401 and not self._sign_in.api_key
        ):  # the token has grown old; a new one is had once, by the password
            del self._session.headers["Authorization"]
            refused = self._log_in()
            response = refused or self._session.request(method, url, timeout=TIMEOUT_SECONDS, **arguments)
        return response

    def _log_in(self) -> requests.Response | None:
        """Sign in. Returns: None, or the answer that says why not."""
        name_and_password = {"username": self._sign_in.username, "password": self._sign_in.password}
        url = f"{self._base}/auth/login"
        response = self._session.post(url, json=name_and_password, timeout=TIMEOUT_SECONDS)
        if response.status_code != 200:
            return response
        self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"
        return None


def _trouble(response: requests.Response) -> str | None:
    """Return why an answer is not final, or None for one that is."""
    if response.status_code in REPEATED_STATUSES:
        return f"status {response.status_code}"
    if response.status_code == 409 and _problem(response).get("code") == "idempotency_in_progress":
        return "the same request still runs"
    return None


def _reply(response: requests.Response) -> Reply:
    if response.status_code >= 400:
        raise GatewayRefused(response.status_code, _problem(response))
    is_replayed = response.headers.get("Idempotent-Replayed") == "true"
    return Reply(response.status_code, response.json() if response.content else None, is_replayed)


def _problem(response: requests.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except requests.JSONDecodeError:
        return {"detail": response.text[:200]}
    return problem if isinstance(problem, dict) else {"detail": str(problem)[:200]}
