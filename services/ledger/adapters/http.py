"""The signed query API: `POST {base_url}/payments/query`, described in docs/channels.md. The simulator speaks it."""

from typing import Final

import orjson

from services.ledger.adapters.answers import Answer, Channel
from services.ledger.domain.channels import QUERY_SECRET
from services.ledger.domain.payments import PAYMENTS_MAX, read_payment
from services.ledger.signatures import BadSignature, check_signature, sign
from shared.addresses import AddressRefused
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.outbound import NoAnswer, Reply, send
from shared.times import utc_now

QUERY_PATH: Final = "/payments/query"


def ask(channel: Channel, *, order_no: str, upstream_ref: str | None, allowed: frozenset[str]) -> Answer:
    """Ask for the payments of an order; the answer must be signed, and to this very question."""
    body = orjson.dumps({"order_no": order_no})
    secret = str(channel.secrets[QUERY_SECRET])
    question_id = new_id("qry")
    headers = sign(secret, message_id=question_id, body=body, at=utc_now()) | {"Content-Type": "application/json"}
    url = str(channel.config["base_url"]).rstrip("/") + QUERY_PATH
    try:
        reply = send("POST", url, allowed=allowed, headers=headers, body=body)
    except (AddressRefused, NoAnswer) as error:
        return Answer(fault=str(error))
    return _read(reply, channel, secret=secret, question_id=question_id, order_no=order_no)


def _read(reply: Reply, channel: Channel, *, secret: str, question_id: str, order_no: str) -> Answer:
    def fault(text: str) -> Answer:
        return Answer(status_code=reply.status, body=reply.body, fault=text)

    if reply.status != 200:
        return fault(f"The platform answers {reply.status}.")
    try:
        answer_id, signed_at = check_signature([secret], reply.headers, reply.body)
    except BadSignature:
        return fault("The answer is not signed.")
    if answer_id != question_id:
        return fault("The answer is to another question.")
    try:
        content = orjson.loads(reply.body)
        found = content["payments"]
        if type(found) is not list or len(found) > PAYMENTS_MAX:
            raise TypeError("not so many payments as an order has")
        payments = [read_payment(p, statuses=channel.statuses, default_time=signed_at) for p in found]
    except (orjson.JSONDecodeError, KeyError, TypeError, InvalidRequest):
        return fault("The answer cannot be read.")
    if any(payment.order_no != order_no for payment in payments):
        return fault("The answer is about another order.")
    return Answer(tuple(payments), reply.status, reply.body)
