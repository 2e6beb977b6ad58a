"""The control API, for tests and people (JSON).

`GET|POST /control/payments` `{account, order_no, amount, currency, status?, fee?, upstream_ref?, time?}` (or a list of
them), `PATCH /control/payments/<account>/<upstream_ref>`, `PUT /control/callbacks/<account>` `{url}`, `POST
/control/deliver` `{account, upstream_refs?, times?, at_once?, is_same_message?}`, `POST /control/plant` (see
`planting.make_plan`), `GET|POST|DELETE /control/faults` (see `faults.Fault`), `POST /control/reset`.
"""

from datetime import date
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from simulators.payment_platform.current import courier, faults, faults_of_callbacks, state
from simulators.payment_platform.faults import Fault
from simulators.payment_platform.planting import make_plan
from simulators.payment_platform.state import Payment

control = Blueprint("control", __name__, url_prefix="/control")
TIMES_MAX, AT_ONCE_MAX = 100, 64


@control.errorhandler(TypeError)
@control.errorhandler(ValueError)
@control.errorhandler(KeyError)
def refuse(error: Exception) -> ResponseReturnValue:
    """Answer what was asked for wrongly."""
    return jsonify({"error": str(error)}), 422


@control.get("/payments")
def list_payments() -> ResponseReturnValue:
    """Answer the payments of an account, or of all, as they were made."""
    found = state().of_account(request.args.get("account"))
    return jsonify({"items": [{"account": payment.account, **payment.content()} for payment in found]})


@control.post("/payments")
def make_payments() -> ResponseReturnValue:
    """Make a payment, or a list of them."""
    body = request.get_json()
    if isinstance(body, list):
        made = [state().make(**fields) for fields in body]
        return jsonify({"items": [payment.content() for payment in made]}), 201
    return jsonify(state().make(**body).content()), 201


@control.patch("/payments/<account>/<upstream_ref>")
def change_payment(account: str, upstream_ref: str) -> ResponseReturnValue:
    """Let a payment come into another status, or be otherwise different."""
    return jsonify(state().change(account, upstream_ref, **request.get_json()).content())


@control.put("/callbacks/<account>")
def set_callback_url(account: str) -> ResponseReturnValue:
    """Say where an account's callbacks go."""
    state().callback_urls[account] = str(request.get_json()["url"])
    return "", 204


@control.post("/deliver")
def deliver() -> ResponseReturnValue:
    """Deliver callbacks of an account's payments, all of them unless some are named; answers when that is done."""
    body: dict[str, Any] = request.get_json()
    account = str(body["account"])
    known = state()
    refs = body.get("upstream_refs")
    payments: list[Payment] = (
        known.of_account(account) if refs is None else [known.payment(account, str(ref)) for ref in refs]
    )
    delivered = courier().deliver(
        payments,
        known.callback_urls.__getitem__,
        times=min(int(body.get("times", 1)), TIMES_MAX),
        at_once=min(int(body.get("at_once", 1)), AT_ONCE_MAX),
        is_same_message=bool(body.get("is_same_message", True)),
        faults_of=faults_of_callbacks,
    )
    return jsonify(delivered.as_json())


@control.post("/plant")
def plant() -> ResponseReturnValue:
    """Make weeks of payments with mismatches, and answer which orders we are to have, and what does not fit."""
    body: dict[str, Any] = request.get_json()
    plan = make_plan(**body | {"first_day": date.fromisoformat(body["first_day"])})
    state().add(plan.payments)
    return jsonify({name: rows for name, rows in plan.as_json().items() if name != "payments"}), 201


@control.get("/faults")
def list_faults() -> ResponseReturnValue:
    """Answer the faults that still wait."""
    return jsonify({"items": faults().as_json()})


@control.post("/faults")
def order_fault() -> ResponseReturnValue:
    """Order a fault."""
    fault = Fault(**request.get_json())
    faults().order(fault)
    return jsonify(fault), 201


@control.delete("/faults")
def clear_faults() -> ResponseReturnValue:
    """Behave again."""
    faults().clear()
    return "", 204


@control.post("/reset")
def reset() -> ResponseReturnValue:
    """Forget everything."""
    faults().clear()
    state().forget()
    return "", 204
