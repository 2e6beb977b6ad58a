"""The Bot API as telegram uses it, and the one place that knows the bot's token: it stands in no error and no log.

Only the one host that the deployment names is called, no redirect is followed, no proxy or netrc of the environment
is taken, an answer has a size and a time that it may not pass. Source: RELIABILITY.md R32.
"""

import json
import logging
import time
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

CONNECT_TIMEOUT_SECONDS = 3.0
READ_TIMEOUT_SECONDS = 8.0
ANSWER_SECONDS_MAX = 10.0  # well below the lease of an attempt
ANSWER_BYTES_MAX = 64 * 1024
CONNECTIONS_MAX = 16


class Refusal(StrEnum):
    """What an attempt came to that is no success."""

    RATE_LIMITED = "rate_limited"  # not delivered; wait for retry_after_seconds
    MIGRATED = "migrated"  # not delivered; the group lives on as migrate_to_chat_id
    UNREACHABLE = "unreachable"  # not delivered; the bot cannot write there any more
    REFUSED = "refused"  # not delivered, and never will be as it is
    MISCONFIGURED = "misconfigured"  # not delivered; the token is wrong, so no message will be
    UNAVAILABLE = "unavailable"  # not delivered; later it may be
    UNKNOWN = "unknown"  # nobody can say whether it was delivered


@dataclass(frozen=True)
class Sent:
    """Telegram has the message."""

    message_id: int
    chat_title: str


class BotApiError(Exception):
    """An attempt that did not succeed. Its text may be shown to people."""

    def __init__(
        self,
        refusal: Refusal,
        text: str,
        *,
        retry_after_seconds: int = 0,
        migrate_to_chat_id: int = 0,
    ) -> None:
        super().__init__(text)
        self.refusal = refusal
        self.retry_after_seconds = retry_after_seconds
        self.migrate_to_chat_id = migrate_to_chat_id


class BotApi:
    """Calls the Bot API. Safe for several threads at once."""

    def __init__(
        self,
        api_url: str,
        token: str,
        *,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> None:
        """Prepare to call.

        Raises: ValueError for an address that may not be called.
        """
        check_api_url(api_url)
        logging.getLogger("urllib3").setLevel(logging.WARNING)  # below, it logs paths, and the token is in them
        self._base = f"{api_url.rstrip('/')}/bot{token}"
        self._timeout = (CONNECT_TIMEOUT_SECONDS, read_timeout_seconds)
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_maxsize=CONNECTIONS_MAX)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def send_message(self, chat_id: int, text: str) -> Sent:
        """Send a text as it is, without markup. Raises: BotApiError."""
        body = {"chat_id": chat_id, "text": text, "link_preview_options": {"is_disabled": True}}
        result = self._call("sendMessage", body)
        try:
            return Sent(int(result["message_id"]), str(result["chat"].get("title", "")))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise BotApiError(Refusal.UNKNOWN, "Telegram's answer names no message.") from None

    def _call(self, method: str, body: dict[str, Any]) -> Any:
        # Whatever requests raises bears the address, and so the token: none of it goes on, not even as a cause.
        try:
            status, content = self._post(method, body)
        except requests.RequestException as error:
            problem = _error_of_exception(error)
        else:
            answer = _json_of(content)
            if status == 200 and answer.get("ok") is True:
                return answer.get("result")
            problem = _error_of_answer(status, answer)
        raise problem

    def _post(self, method: str, body: dict[str, Any]) -> tuple[int, bytes]:
        give_up_at = time.monotonic() + ANSWER_SECONDS_MAX
        url = f"{self._base}/{method}"
        with self._session.post(url, json=body, timeout=self._timeout, allow_redirects=False, stream=True) as response:
            content = b""
            for piece in response.iter_content(8192):
                content += piece
                if len(content) > ANSWER_BYTES_MAX or time.monotonic() > give_up_at:
                    raise requests.ReadTimeout
            return response.status_code, content


def check_api_url(api_url: str) -> None:
    """Refuse an address over which the token would cross the internet in the clear, or that is none.

    Raises: ValueError.
    """
    url = urlsplit(api_url)
    is_safe = url.scheme == "https" or (url.scheme == "http" and _is_near(url.hostname or ""))
    if not url.hostname or url.username is not None or not is_safe:
        raise ValueError("TELEGRAM_API_URL is an https address, or an http one on this machine or a private network")


def _is_near(host: str) -> bool:
    """Return whether a host is this machine, a private address, or a name of a local network such as `bot-api`."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return host != "" and "." not in host


def _json_of(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _error_of_exception(error: requests.RequestException) -> BotApiError:
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    if isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError | ConnectTimeoutError):
        return BotApiError(Refusal.UNAVAILABLE, "Telegram cannot be reached.")
    if isinstance(error, requests.exceptions.SSLError):
        return BotApiError(Refusal.UNAVAILABLE, "Telegram showed no valid certificate.")
    if isinstance(error, requests.Timeout):
        return BotApiError(Refusal.UNKNOWN, "Telegram did not answer in time.")
    return BotApiError(Refusal.UNKNOWN, "The connection to Telegram broke before it answered.")


def _error_of_answer(status: int, answer: dict[str, Any]) -> BotApiError:
    if answer.get("ok") is not False:
        # Something between Telegram and us answered, and does not know what Telegram did.
        is_unknown = status >= 500 or status < 300
        refusal = Refusal.UNKNOWN if is_unknown else Refusal.UNAVAILABLE
        return BotApiError(refusal, f"Something other than Telegram answered, with status {status}.")
    text = f"Telegram refused with {status}: {str(answer.get('description', ''))[:200]}"
    given = answer.get("parameters")
    parameters: dict[str, Any] = given if isinstance(given, dict) else {}
    if "migrate_to_chat_id" in parameters:
        return BotApiError(Refusal.MIGRATED, text, migrate_to_chat_id=int(parameters["migrate_to_chat_id"]))
    if status == 429:
        wait = max(int(parameters.get("retry_after", 1)), 1)
        return BotApiError(Refusal.RATE_LIMITED, text, retry_after_seconds=wait)
    if status >= 500:
        return BotApiError(Refusal.UNAVAILABLE, text)
    if status in (401, 404):
        return BotApiError(Refusal.MISCONFIGURED, text)
    if status == 403 or (status == 400 and "chat not found" in text):
        return BotApiError(Refusal.UNREACHABLE, text)
    return BotApiError(Refusal.REFUSED, text)
