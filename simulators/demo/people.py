"""Makes people of each role, who can sign in, so that each can be tried out."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from shared.times import rfc3339
from simulators.demo.orders import once
from simulators.gateway_client import GatewayClient, SignIn

GRANT_DAYS: Final = 7
CLERK: Final = "Reconciliation clerk"
CLERK_PERMISSIONS: Final = {
    "orders": "read",
    "ledger": "read",
    "mismatches": "operate",
    "settings": "read",
}


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody of the staff; of `merchants` None is all. What is granted ends after a week."""

    username: str
    display_name: str
    roles: tuple[str, ...]
    merchants: tuple[str, ...] | None = None
    granted_merchants: tuple[str, ...] = ()
    disabled_because: str | None = None


SECOND_ADMINISTRATOR: Final = Person(username="alice", display_name="Alice Amsel", roles=("administrator",))
PEOPLE: Final = (
    SECOND_ADMINISTRATOR,
    Person(username="bob", display_name="Bob Buntspecht", roles=("operator",), merchants=("AURORA",)),
    Person(
        username="charlie",
        display_name="Charlie Dohle",
        roles=("operator",),
        merchants=("BOREALIS",),
        granted_merchants=("CIRRUS",),
    ),
    Person(username="dora", display_name="Dora Elster", roles=("auditor",)),
    Person(username="emil", display_name="Emil Falke", roles=(CLERK,)),
    Person(
        username="frida",
        display_name="Frida Grasmücke",
        roles=("operator",),
        merchants=("CIRRUS",),
        disabled_because="Left the company.",
    ),
)


def make_people(
    client: GatewayClient, url: str, merchant_ids: Mapping[str, str], keep: Callable[[SignIn], None]
) -> GatewayClient:
    """Make the people who lack; each has chosen a password, which is kept.

    keep: is given each sign-in that was made.
    Returns: the second administrator's client, or `client` where that password is not known any more.
    """
    second = client
    known = {user["username"] for user in client.items("/users")}
    description = "Matches orders with statements, and asks for corrections."
    role = {"name": CLERK, "description": description, "permissions": CLERK_PERMISSIONS}
    once(partial(client.post, "/roles", role), "role_name_taken")
    for person in PEOPLE:
        if person.username in known:
            continue
        sign_in = _make(client, url, person, merchant_ids)
        keep(sign_in)
        if person is SECOND_ADMINISTRATOR:
            second = GatewayClient(sign_in)
    return second


def _make(client: GatewayClient, url: str, person: Person, merchant_ids: Mapping[str, str]) -> SignIn:
    ends_at = rfc3339(datetime.now(UTC) + timedelta(days=GRANT_DAYS))
    body: dict[str, Any] = {
        "username": person.username,
        "display_name": person.display_name,
        "roles": list(person.roles),
        "merchants": "all" if person.merchants is None else [merchant_ids[code] for code in person.merchants],
        "grants": [{"merchant_id": merchant_ids[code], "ends_at": ends_at} for code in person.granted_merchants],
    }
    made = client.post("/users", body).body
    chosen = SignIn(url=url, username=person.username, password=secrets.token_urlsafe(15))
    first = GatewayClient(SignIn(url=url, username=person.username, password=made["temporary_password"]))
    first.post("/auth/password", {"current_password": made["temporary_password"], "new_password": chosen.password})
    if person.disabled_because:
        client.post(f"/users/{made['id']}/disable", {"reason": person.disabled_because})
    return chosen
