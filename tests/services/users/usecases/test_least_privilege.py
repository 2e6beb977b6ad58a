"""The report of what was granted against what was used, and shrinking to it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users.models import EndingGrant, Merchant, Role, User
from services.users.usecases import least_privilege, roles
from services.users.usecases.least_privilege import get_least_privilege, list_least_privilege, shrink_once, shrink_user
from services.users.usecases.merchants import create_merchant
from shared.contracts.audit import UsedPermission
from shared.contracts.users import GrantExceedsOwn, LastAdministrator, LeastPrivilegeView, UserNotFound
from shared.errors import IdempotencyKeyReused
from shared.passport import Passport
from shared.permissions import MODULES
from shared.rpc.wire import current_call
from shared.times import parse_rfc3339, utc_now
from tests.services.users.conftest import events, make_user, passport_of

WHEN = "2026-11-20T09:00:00.000Z"
NOTHING = dict.fromkeys(MODULES, "none")


def used(*permissions: str) -> list[UsedPermission]:
    return [{"permission": permission, "uses": 2, "last_used_at": WHEN} for permission in permissions]


class Audit:
    """Stands in for the audit service: the figures of everybody, and what it was asked."""

    def __init__(self) -> None:
        self.figures: dict[str, list[UsedPermission]] = {}
        self.questions: list[tuple[list[str], str]] = []

    def __call__(self, user_ids: Sequence[str], from_time: str) -> dict[str, list[UsedPermission]]:
        self.questions.append((list(user_ids), from_time))
        return {user_id: self.figures.get(user_id, []) for user_id in user_ids}


@pytest.fixture
def audit() -> Audit:
    return Audit()


@pytest.fixture
def run(session: Session) -> least_privilege.Run:
    return lambda work: work(session)


@pytest.fixture
def dora(session: Session, root: User) -> User:
    return make_user(session, "dora", roles=["operator"])


@pytest.fixture
def shrink(session: Session, as_root: Passport, dora: User) -> Callable[..., Any]:
    def shrink(*permissions: str, user: User = dora, by: Passport = as_root) -> Any:
        return shrink_user(session, by, user_id=user.id, reason="unused for long", used=used(*permissions))

    return shrink


class TestReport:
    def test_granted_stands_beside_used(
        self, run: least_privilege.Run, audit: Audit, as_root: Passport, dora: User
    ) -> None:
        audit.figures[dora.id] = used("cards:read", "cards:operate", "ledger:read")
        report: LeastPrivilegeView = get_least_privilege(run, audit, as_root, user_id=dora.id)
        cards = next(m for m in report["modules"] if m["module"] == "cards")
        assert cards == {"module": "cards", "granted": "operate", "used": "operate", "uses": 4, "last_used_at": WHEN}
        orders = next(m for m in report["modules"] if m["module"] == "orders")
        assert (orders["granted"], orders["used"], orders["last_used_at"]) == ("operate", "none", None)
        assert "cards:operate" not in report["excess"]
        assert {"ledger:operate", "orders:operate", "logs:read"} <= set(report["excess"])
        assert report["least"] == NOTHING | {"cards": "operate", "ledger": "read"}
        assert report["least_roles"] is None

    def test_it_is_about_ninety_days_or_less_of_a_new_user(
        self, run: least_privilege.Run, audit: Audit, as_root: Passport, dora: User
    ) -> None:
        report = get_least_privilege(run, audit, as_root, user_id=dora.id)
        assert parse_rfc3339(report["since"]) >= dora.created_at.replace(microsecond=0)
        [(asked, from_time)] = audit.questions
        assert asked == [dora.id]
        assert (utc_now() - parse_rfc3339(from_time)).days == 90

    def test_list_asks_once_for_a_page_and_pages_on(
        self, session: Session, run: least_privilege.Run, audit: Audit, as_root: Passport
    ) -> None:
        people = [make_user(session, f"u{n}", roles=["auditor"]) for n in range(3)]
        audit.figures[people[2].id] = used("cards:read")
        first = list_least_privilege(run, audit, as_root, limit=2, role="auditor")
        rest = list_least_privilege(run, audit, as_root, limit=2, role="auditor", cursor=first["next_cursor"])
        assert [r["username"] for r in (*first["items"], *rest["items"])] == ["u2", "u1", "u0"]
        assert len(audit.questions) == 2
        assert "cards:read" not in first["items"][0]["excess"]
        assert "cards:read" in first["items"][1]["excess"]

    def test_whoever_the_caller_does_not_see_does_not_exist(
        self, session: Session, run: least_privilege.Run, audit: Audit, as_root: Passport, dora: User
    ) -> None:
        scoped = replace(as_root, actor_id="usr_else", merchants=frozenset({"mer_1"}))
        with pytest.raises(UserNotFound):
            get_least_privilege(run, audit, scoped, user_id=dora.id)
        assert audit.questions == []
        assert list_least_privilege(run, audit, scoped, limit=50)["items"] == []


class TestShrink:
    def test_existing_roles_are_taken_where_they_give_exactly_what_was_used(
        self, session: Session, as_root: Passport, dora: User, shrink: Callable[..., Any]
    ) -> None:
        roles.create_role(session, as_root, name="cards", permissions={"cards": "operate"})
        roles.create_role(session, as_root, name="books", permissions={"ledger": "read"})
        view = shrink("cards:operate", "ledger:read", "cards:read")
        assert view["roles"] == ["books", "cards"]
        [told] = events(session, "UserShrunk")
        assert told["payload"]["reason"] == "unused for long"
        assert "orders:operate" in told["payload"]["excess"]
        assert told["payload"]["changes"] == {"roles": {"before": ["operator"], "after": ["books", "cards"]}}

    def test_else_the_user_gets_a_role_of_their_own(
        self, session: Session, dora: User, shrink: Callable[..., Any]
    ) -> None:
        assert shrink("cards:operate", "ledger:read")["roles"] == ["least-dora"]
        assert dict(dora.grant().permissions) == NOTHING | {"cards": "operate", "ledger": "read"}
        assert events(session, "RoleCreated")[-1]["payload"]["name"] == "least-dora"
        assert shrink("ledger:read")["roles"] == ["least-dora-2"]  # never changes a role that others may have by now

    def test_what_was_not_used_at_all_leaves_nothing(self, dora: User, shrink: Callable[..., Any]) -> None:
        assert shrink()["roles"] == []

    def test_where_nothing_is_in_excess_nothing_changes(
        self, session: Session, dora: User, shrink: Callable[..., Any]
    ) -> None:
        first = shrink("cards:operate")
        assert shrink("cards:operate", "cards:admin", "users:admin") == first  # it never grows
        assert len(events(session, "UserShrunk")) == 1

    def test_what_ends_by_itself_is_left_to_end(self, session: Session, dora: User, shrink: Callable[..., Any]) -> None:
        late = utc_now().replace(year=2999)
        session.add(EndingGrant(id="grt_1", user_id=dora.id, role_name="auditor", ends_at=late, granted_by="x"))
        session.flush()
        session.refresh(dora)
        view = shrink("cards:operate")
        assert (view["roles"], [g["role"] for g in view["grants"]]) == (["least-dora"], ["auditor"])

    def test_last_administrator_stays(
        self, session: Session, root: User, as_root: Passport, shrink: Callable[..., Any]
    ) -> None:
        with pytest.raises(LastAdministrator):
            shrink("cards:read", user=root)
        session.refresh(root)
        make_user(session, "second", roles=["administrator"])
        assert shrink("cards:read", user=root)["roles"] == ["least-root"]

    def test_nobody_shrinks_somebody_stronger_or_unseen(
        self, session: Session, as_root: Passport, root: User, dora: User, shrink: Callable[..., Any]
    ) -> None:
        aurora = session.get_one(Merchant, create_merchant(session, as_root, code="AURORA", name="Aurora")["id"])
        roles.create_role(session, as_root, name="clerk", permissions={"users": "admin"})
        clerk = make_user(session, "clerk", roles=["clerk"])
        with pytest.raises(GrantExceedsOwn):
            shrink("cards:read", by=passport_of(clerk))
        scoped = make_user(session, "scoped", roles=["administrator"], merchants=[aurora])
        with pytest.raises(UserNotFound):
            shrink("cards:read", by=passport_of(scoped))

    def test_name_that_no_role_may_bear_is_mended(self, session: Session, shrink: Callable[..., Any]) -> None:
        odd = make_user(session, "d+o@ra" + "x" * 58, roles=["operator"])
        [name] = shrink("cards:read", user=odd)["roles"]
        assert len(name) <= 60
        assert set("+@") & set(name) == set()

    def test_under_one_key_it_is_done_once(
        self, session: Session, run: least_privilege.Run, audit: Audit, as_root: Passport, dora: User
    ) -> None:
        audit.figures[dora.id] = used("cards:operate")
        call = replace(current_call.get(), passport=as_root, idempotency_key="k1", arguments={"user_id": dora.id})
        token = current_call.set(call)
        try:
            first = shrink_once(run, audit, as_root, user_id=dora.id, reason="r")
            audit.figures[dora.id] = []
            again = shrink_once(run, audit, as_root, user_id=dora.id, reason="r")
            assert (again.result, again.is_replayed) == (first.result, True)
            current_call.set(replace(call, arguments={"user_id": dora.id, "reason": "other"}))
            with pytest.raises(IdempotencyKeyReused):
                shrink_once(run, audit, as_root, user_id=dora.id, reason="other")
        finally:
            current_call.reset(token)
        assert session.scalar(sa.select(sa.func.count()).select_from(Role).where(Role.name.like("least-%"))) == 1
