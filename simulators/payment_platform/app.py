"""What a platform offers under `/<account>/`: the signed query API and statements; and the least of Stripe's API."""

import hmac
import re
import socket
import time

import orjson
from flask import Blueprint, Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from standardwebhooks import Webhook, WebhookVerificationError

from simulators.payment_platform.control import control
from simulators.payment_platform.current import faults, install, secret, state
from simulators.payment_platform.delivery import sign
from simulators.payment_platform.faults import Fault
from simulators.payment_platform.statements import FORMATS, day_of
from simulators.payment_platform.stripe import STRIPE_ACCOUNT, intent_of

_SEARCHED = re.compile(r"metadata\['order_no'\]:'([^']+)'")

platform_api = Blueprint("platform_api", __name__)


def create_app(secret_of_platform: str) -> Flask:
    """Make a platform that signs and checks by this secret."""
    app = Flask(__name__)
    install(app, secret_of_platform)
    app.register_blueprint(control)
    app.register_blueprint(platform_api)
    return app


@platform_api.post("/<account>/payments/query")
def query_payments(account: str) -> ResponseReturnValue:
    """Answer a signed question with the payments of an order, signed too."""
    question = request.get_data()
    try:
        Webhook(secret()).verify(question, dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        return jsonify({"error": "bad signature"}), 401
    met = faults().take("query", account)
    refusal = _suffer(met)
    if refusal is not None:
        return refusal
    payments = [p.content() for p in state().of_order(account, str(orjson.loads(question).get("order_no")))]
    if "wrong_amount" in met:
        payments = [{**payment, "amount": f"9{payment['amount']}"} for payment in payments]
    body = orjson.dumps({"payments": payments})
    headers = sign(secret(), request.headers["webhook-id"], body)
    if "bad_signature" in met:
        headers["webhook-signature"] = "v1,Zm9yZ2Vk"
    return Response(body, headers=headers, mimetype="application/json")


@platform_api.get("/<account>/statements/<day>.<file_format>")
def download_statement(account: str, day: str, file_format: str) -> ResponseReturnValue:
    """Answer a calendar day of an account as a file: csv, sta (MT940) or xml (camt.053). `zone` is UTC by default."""
    write = FORMATS.get(file_format)
    if write is None:
        return jsonify({"error": f"one of {', '.join(FORMATS)}"}), 404
    refusal = _suffer(faults().take("statement", account))
    if refusal is not None:
        return refusal
    zone = request.args.get("zone", "UTC")
    payments = [payment for payment in state().of_account(account) if day_of(payment, zone) == day]
    return Response(write(payments, zone), mimetype="text/plain")


@platform_api.get("/v1/payment_intents/search")
def search_payment_intents() -> ResponseReturnValue:
    """Answer as Stripe does: the PaymentIntents of an order, of the account `stripe`."""
    refusal = _stripe_refusal()
    if refusal is not None:
        return refusal
    match = _SEARCHED.fullmatch(request.args.get("query", ""))
    found = state().of_order(STRIPE_ACCOUNT, match.group(1)) if match else []
    intents = [intent_of(payment) for payment in found]
    return jsonify({"object": "search_result", "data": intents, "has_more": False, "url": "/v1/payment_intents/search"})


@platform_api.get("/v1/payment_intents/<upstream_ref>")
def retrieve_paymentintent_of(upstream_ref: str) -> ResponseReturnValue:
    """Answer as Stripe does: one PaymentIntent."""
    refusal = _stripe_refusal()
    if refusal is not None:
        return refusal
    try:
        return jsonify(intent_of(state().payment(STRIPE_ACCOUNT, upstream_ref)))
    except KeyError:
        error = {"type": "invalid_request_error", "code": "resource_missing", "message": "No such payment_intent"}
        return jsonify({"error": error}), 404


def _stripe_refusal() -> ResponseReturnValue | None:
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {secret()}".encode()):
        return jsonify({"error": {"type": "invalid_request_error", "message": "Invalid API Key provided"}}), 401
    return _suffer(faults().take("query", STRIPE_ACCOUNT))


def _suffer(met: dict[str, Fault]) -> ResponseReturnValue | None:
    """Suffer what was ordered. Returns: the answer that takes the place of the right one, or None."""
    if "delay" in met:
        time.sleep(met["delay"].delay_seconds)
    if "drop" in met:
        connection: socket.socket = request.environ["werkzeug.socket"]
        connection.shutdown(socket.SHUT_RDWR)
    if "server_error" in met or "drop" in met:
        return jsonify({"error": "internal"}), 500
    if "redirect" in met:
        return Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"})
    return None
