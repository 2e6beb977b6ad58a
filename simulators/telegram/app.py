"""The emulator's HTTP: the Bot API under `/bot<token>/`, and a control API for tests and people.

Control API (JSON): `GET|DELETE /control/messages?chat_id=`, `GET|POST|DELETE /control/faults`,
`POST /control/updates` `{chat_id, text, user_id?, username?}` (a member writes), `PUT /control/chats/{id}`
`{title}`, `POST /control/reset`.
"""

import hmac
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import requests
from flask import Blueprint, Flask, Response, current_app, jsonify, request
from flask.typing import ResponseReturnValue

from simulators.telegram.faults import Fault, Faults
from simulators.telegram.state import BOT_USER, MEMBER_USER_ID_DEFAULT, TelegramState, Webhook

TEXT_CHARACTERS_MAX = 4096
POLL_SECONDS_MAX = 50
UPDATES_MAX = 100
WEBHOOK_TIMEOUT_SECONDS = 10
PARSE_MODES = ("HTML", "Markdown", "MarkdownV2")

bot_api = Blueprint("bot_api", __name__)
control = Blueprint("control", __name__, url_prefix="/control")


class BotApiRefusal(Exception):
    """An answer with `ok: false`."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters


def create_app(token: str) -> Flask:
    """Make an emulator that answers this token only."""
    app = Flask(__name__)
    app.extensions["telegram"] = {"token": token, "state": TelegramState(), "faults": Faults()}
    app.register_blueprint(bot_api)
    app.register_blueprint(control)
    app.register_error_handler(BotApiRefusal, answer_refusal)
    return app


def state() -> TelegramState:
    """Answer what this emulator remembers."""
    remembered: TelegramState = current_app.extensions["telegram"]["state"]
    return remembered


def faults() -> Faults:
    """Answer the faults in force."""
    in_force: Faults = current_app.extensions["telegram"]["faults"]
    return in_force


def answer_refusal(refusal: BotApiRefusal) -> ResponseReturnValue:
    """Answer a refusal in the Bot API's form."""
    body: dict[str, Any] = {
        "ok": False,
        "error_code": refusal.status,
        "description": refusal.description,
    }
    if refusal.parameters:
        body["parameters"] = refusal.parameters
    return jsonify(body), refusal.status


@bot_api.route("/bot<token>/<method>", methods=["GET", "POST"])
def call(token: str, method: str) -> ResponseReturnValue:
    """Answer one call of the Bot API, after the faults that were ordered for it."""
    if not hmac.compare_digest(token.encode(), current_app.extensions["telegram"]["token"].encode()):
        raise BotApiRefusal(401, "Unauthorized")
    answer = METHODS.get(method.lower())
    if answer is None:
        raise BotApiRefusal(404, "Not Found: method not found")
    parameters = _parameters()
    is_dropped_after = False
    for fault in faults().take(method, _chat_id(parameters, required=False)):
        if fault.kind == "bad_gateway":
            return Response("<html><h1>502 Bad Gateway</h1></html>", status=502, mimetype="text/html")
        is_dropped_after = fault.kind == "drop_after_delivery"
        _suffer(fault)
    result = answer(parameters)
    if is_dropped_after:
        _drop_connection()
    return jsonify({"ok": True, "result": result})


def _suffer(fault: Fault) -> None:
    if fault.kind == "delay":
        time.sleep(fault.delay_seconds)
    elif fault.kind == "too_many_requests":
        wait = fault.retry_after
        raise BotApiRefusal(429, f"Too Many Requests: retry after {wait}", retry_after=wait)
    elif fault.kind == "server_error":
        raise BotApiRefusal(500, "Internal Server Error")
    elif fault.kind == "bot_was_kicked":
        raise BotApiRefusal(403, "Forbidden: bot was kicked from the supergroup chat")
    elif fault.kind == "chat_not_found":
        raise BotApiRefusal(400, "Bad Request: chat not found")
    elif fault.kind == "migrated":
        description = "Bad Request: group chat was upgraded to a supergroup chat"
        raise BotApiRefusal(400, description, migrate_to_chat_id=fault.migrate_to_chat_id or 0)
    elif fault.kind == "drop_before_delivery":
        _drop_connection()
        raise BotApiRefusal(500, "Internal Server Error")


def _drop_connection() -> None:
    connection: socket.socket = request.environ["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)


def _parameters() -> dict[str, Any]:
    if request.is_json:
        body = request.get_json(silent=True)
        if not isinstance(body, dict):
            raise BotApiRefusal(400, "Bad Request: can't parse JSON object")
        return body
    return request.values.to_dict()


def _chat_id(parameters: dict[str, Any], *, required: bool = True) -> int | None:
    try:
        return int(str(parameters.get("chat_id", "")))
    except ValueError:
        if required:
            raise BotApiRefusal(400, "Bad Request: chat_id is empty") from None
        return None


def _chat(parameters: dict[str, Any]) -> dict[str, Any]:
    chat = state().chat(_chat_id(parameters) or 0)
    if chat is None:
        raise BotApiRefusal(400, "Bad Request: chat not found")
    return chat


def _whole_number(parameters: dict[str, Any], name: str, default: int) -> int:
    try:
        return int(parameters.get(name, default))
    except (TypeError, ValueError):
        raise BotApiRefusal(400, f"Bad Request: {name} must be an Integer") from None


def get_me(parameters: dict[str, Any]) -> dict[str, Any]:
    """Answer who the bot is."""
    return BOT_USER


def get_chat(parameters: dict[str, Any]) -> dict[str, Any]:
    """Answer a chat."""
    return _chat(parameters)


def send_message(parameters: dict[str, Any]) -> dict[str, Any]:
    """Deliver a text, refusing what the real one refuses: none, too long, an unknown parse mode."""
    chat = _chat(parameters)
    text = parameters.get("text")
    if not isinstance(text, str) or not text.strip():
        raise BotApiRefusal(400, "Bad Request: message text is empty")
    if len(text) > TEXT_CHARACTERS_MAX:
        raise BotApiRefusal(400, "Bad Request: message is too long")
    if parameters.get("parse_mode") not in (None, *PARSE_MODES):
        raise BotApiRefusal(400, "Bad Request: unsupported parse_mode")
    kept = {name: parameters[name] for name in ("parse_mode", "reply_markup") if name in parameters}
    return state().deliver(chat, text, **kept)


def get_updates(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Answer what people wrote, waiting up to `timeout` seconds for it."""
    if state().webhook.url:
        raise BotApiRefusal(409, "Conflict: can't use getUpdates method while webhook is active")
    limit = min(max(_whole_number(parameters, "limit", UPDATES_MAX), 1), UPDATES_MAX)
    timeout = min(max(_whole_number(parameters, "timeout", 0), 0), POLL_SECONDS_MAX)
    return state().updates_from(_whole_number(parameters, "offset", 0), limit, timeout)


def set_webhook(parameters: dict[str, Any]) -> bool:
    """Send updates to a URL from now on."""
    state().webhook = Webhook(str(parameters.get("url", "")), str(parameters.get("secret_token", "")))
    return True


def delete_webhook(parameters: dict[str, Any]) -> bool:
    """Keep updates for getUpdates again."""
    state().webhook = Webhook()
    return True


def get_webhook_info(parameters: dict[str, Any]) -> dict[str, Any]:
    """Answer where updates go."""
    remembered = state()
    return {
        "url": remembered.webhook.url,
        "has_custom_certificate": False,
        "pending_update_count": len(remembered.updates),
    }


METHODS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "getme": get_me,
    "getchat": get_chat,
    "sendmessage": send_message,
    "getupdates": get_updates,
    "setwebhook": set_webhook,
    "deletewebhook": delete_webhook,
    "getwebhookinfo": get_webhook_info,
}


@control.get("/messages")
def list_messages() -> ResponseReturnValue:
    """Answer the bot's messages, oldest first, with `received_at` in seconds."""
    return jsonify({"items": state().messages_in(request.args.get("chat_id", type=int))})


@control.delete("/messages")
def forget_messages() -> ResponseReturnValue:
    """Forget the bot's messages."""
    state().messages.clear()
    return "", 204


@control.get("/faults")
def list_faults() -> ResponseReturnValue:
    """Answer the faults that still wait for a call."""
    return jsonify({"items": faults().as_json()})


@control.post("/faults")
def order_fault() -> ResponseReturnValue:
    """Order a fault for the next calls."""
    try:
        fault = Fault(**request.get_json())
    except (TypeError, ValueError) as error:
        return jsonify({"error": str(error)}), 422
    faults().order(fault)
    return jsonify(fault), 201


@control.delete("/faults")
def clear_faults() -> ResponseReturnValue:
    """Behave again."""
    faults().clear()
    return "", 204


@control.put("/chats/<int(signed=True):chat_id>")
def name_chat(chat_id: int) -> ResponseReturnValue:
    """Give a chat its title."""
    state().name_chat(chat_id, request.get_json()["title"])
    return jsonify(state().chat(chat_id))


@control.post("/updates")
def member_writes() -> ResponseReturnValue:
    """Let a person write in a chat; the bot hears it by getUpdates or at its webhook."""
    body = request.get_json()
    try:
        chat_id, text = int(body["chat_id"]), str(body["text"])
    except (KeyError, TypeError, ValueError):
        return jsonify({"error": "chat_id (a whole number) and text are needed"}), 422
    user_id = int(body.get("user_id", MEMBER_USER_ID_DEFAULT))
    update = state().member_writes(chat_id, text, user_id, str(body.get("username", "member")))
    if state().webhook.url:
        threading.Thread(target=_post_update, args=(state().webhook, update), daemon=True).start()
    return jsonify(update), 201


def _post_update(webhook: Webhook, update: dict[str, Any]) -> None:
    headers = {"X-Telegram-Bot-Api-Secret-Token": webhook.secret_token} if webhook.secret_token else {}
    requests.post(webhook.url, json=update, headers=headers, timeout=WEBHOOK_TIMEOUT_SECONDS)


@control.post("/reset")
def reset() -> ResponseReturnValue:
    """Forget everything."""
    faults().clear()
    state().forget()
    return "", 204
