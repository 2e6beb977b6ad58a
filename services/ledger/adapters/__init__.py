"""How a payment platform is asked what became of an order. A channel of kind `statement` cannot be asked."""

from collections.abc import Callable, Mapping
from typing import Final

from services.ledger.adapters import http, stripe
from services.ledger.adapters.answers import Answer, Channel

ADAPTERS: Final[Mapping[str, Callable[..., Answer]]] = {"http": http.ask, "stripe": stripe.ask}


def ask(channel: Channel, *, order_no: str, upstream_ref: str | None, allowed: frozenset[str]) -> Answer:
    """Ask a channel's platform about an order. It has no effect there, and may be asked again.

    upstream_ref: the platform's own number of the payment, where we know it.
    allowed: the places beside public ones that may be called.
    Returns: the platform's answer, also where it is no proper one: `fault` says why then.
    """
    return ADAPTERS[channel.kind](channel, order_no=order_no, upstream_ref=upstream_ref, allowed=allowed)
