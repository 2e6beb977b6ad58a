"""What is done to users, and by whom: nobody grants more than they hold, and the last administrator stays."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users import queries
from services.users.hashing import fits
from services.users.models import Merchant, Role, SignInFailures, User, UserSession
from services.users.usecases import users
from services.users.usecases.roles import create_role
from shared.contracts.users import (
    GrantExceedsOwn,
    LastAdministrator,
    UsernameTaken,
    UserNotFound,
)
from shared.errors import InvalidRequest, ServiceError
from shared.passport import Passport
from shared.times import parse_rfc3339, utc_now
from tests.services.users.conftest import Transaction, events, make_user, passport_of


@pytest.fixture
def clerk(session: Session, as_root: Passport, aurora: Merchant) -> User:
    """Somebody who administers users, and nothing else, for Aurora alone."""
    create_role(session, as_root, name="clerk", permissions={"users": "admin"})
    return make_user(session, "clerk", roles=["clerk"], merchants=[aurora])


def open_session(session: Session, user: User, id_: str) -> None:
    session.add(
        UserSession(
            id=id_, user_id=user.id, address="a", ip="a", user_agent="", expires_at=utc_now().replace(year=2999)
        )
    )
    session.flush()


class TestCreate:
    def test_new_user_holds_nothing_and_must_change_the_one_time_password(
        self, session: Session, as_root: Passport
    ) -> None:
        view = users.create_user(session, as_root, username="Dora")
        assert (view["roles"], view["merchants"], view["status"]) == ([], [], "active")
        assert view["must_change_password"]
        assert view["display_name"] == "Dora"
        hours_left = (parse_rfc3339(view["password_expires_at"] or "") - utc_now()).total_seconds() / 3600
        assert 71.9 < hours_left <= 72
        stored = session.get_one(User, view["id"])
        assert fits(view["temporary_password"], stored.password_hash)

    def test_event_says_what_was_given_but_not_the_password(
        self, session: Session, as_root: Passport, aurora: Merchant
    ) -> None:
        view = users.create_user(session, as_root, username="dora", roles=["operator"], merchants=[aurora.id])
        [event] = events(session, "UserCreated")
        assert event["resource_id"] == view["id"]
        assert event["payload"]["roles"] == ["operator"]
        assert event["payload"]["changes"]["merchants"] == {"before": None, "after": [aurora.id]}
        assert view["temporary_password"] not in str(event)

    @pytest.mark.parametrize("username", ["root", "ROOT", " Root "])
    def test_taken_username_is_refused_in_any_letter_case(
        self, session: Session, as_root: Passport, username: str
    ) -> None:
        with pytest.raises(UsernameTaken):
            users.create_user(session, as_root, username=username)

    def test_unknown_role_or_merchant_is_named(self, session: Session, as_root: Passport) -> None:
        with pytest.raises(InvalidRequest, match="chef"):
            users.create_user(session, as_root, username="dora", roles=["chef"])
        with pytest.raises(InvalidRequest, match="mer_unknown"):
            users.create_user(session, as_root, username="dora", merchants=["mer_unknown"])

    @pytest.mark.parametrize(
        "grant",
        [
            {"roles": ["administrator"]},
            {"roles": ["operator"]},
            {"merchants": "all"},
            {"merchants": ["mer_unknown"]},
            {"roles": ["auditor"], "merchants": []},
        ],
    )
    def test_clerk_grants_no_more_than_they_hold(self, session: Session, clerk: User, grant: dict[str, Any]) -> None:
        with pytest.raises(GrantExceedsOwn):
            users.create_user(session, passport_of(clerk), username="dora", **grant)

    def test_foreign_and_unknown_merchant_look_alike_to_the_clerk(
        self, session: Session, clerk: User, borealis: Merchant
    ) -> None:
        refusals = []
        for merchant_id in (borealis.id, "mer_unknown"):
            with pytest.raises(GrantExceedsOwn) as caught:
                users.create_user(session, passport_of(clerk), username="dora", merchants=[merchant_id])
            refusals.append(str(caught.value).replace(merchant_id, "…"))
        assert refusals[0] == refusals[1]

    def test_clerk_hands_on_what_they_hold(self, session: Session, clerk: User, aurora: Merchant) -> None:
        view = users.create_user(session, passport_of(clerk), username="dora", roles=["clerk"], merchants=[aurora.id])
        assert (view["roles"], view["merchants"]) == (["clerk"], [aurora.id])


class TestUpdate:
    def test_only_given_fields_change_and_the_event_has_before_and_after(
        self, session: Session, as_root: Passport
    ) -> None:
        dora = make_user(session, "dora", roles=["auditor"])
        view = users.update_user(session, as_root, user_id=dora.id, changes={"email": "d@example.org"})
        assert (view["email"], view["display_name"], view["roles"]) == ("d@example.org", "Dora", ["auditor"])
        [event] = events(session, "UserUpdated")
        assert event["payload"]["changes"] == {"email": {"before": None, "after": "d@example.org"}}

    def test_nothing_is_told_where_nothing_changed(self, session: Session, as_root: Passport) -> None:
        dora = make_user(session, "dora", roles=["auditor"])
        users.update_user(session, as_root, user_id=dora.id, changes={"roles": ["auditor"], "merchants": "all"})
        assert events(session, "UserUpdated") == []

    def test_roles_and_merchants_are_replaced(self, session: Session, as_root: Passport, aurora: Merchant) -> None:
        dora = make_user(session, "dora", roles=["auditor"])
        changes = {"roles": ["operator"], "merchants": [aurora.id]}
        view = users.update_user(session, as_root, user_id=dora.id, changes=changes)
        assert (view["roles"], view["merchants"]) == (["operator"], [aurora.id])
        view = users.update_user(session, as_root, user_id=dora.id, changes={"merchants": "all"})
        assert view["merchants"] == "all"

    def test_username_can_change_but_not_to_a_taken_one(self, session: Session, as_root: Passport) -> None:
        dora = make_user(session, "dora", roles=["auditor"])
        both = {"username": "dorothea", "roles": ["operator"]}
        assert users.update_user(session, as_root, user_id=dora.id, changes=both)["username"] == "dorothea"
        with pytest.raises(UsernameTaken):
            users.update_user(session, as_root, user_id=dora.id, changes={"username": "Root", "roles": []})

    def test_taken_username_is_refused_beside_all_other_changes(self, session: Session, as_root: Passport) -> None:
        """To look at what was given must not write the name unguarded."""
        dora = make_user(session, "dora", roles=["operator"])
        others = {"display_name": "D", "email": "d@example.com", "roles": ["auditor"], "merchants": "all", "grants": []}
        with pytest.raises(UsernameTaken):
            users.update_user(session, as_root, user_id=dora.id, changes={**others, "username": "Root"})

    def test_clerk_cannot_raise_themselves(self, session: Session, clerk: User) -> None:
        for changes in ({"roles": ["clerk", "administrator"]}, {"merchants": "all"}):
            with pytest.raises(GrantExceedsOwn):
                users.update_user(session, passport_of(clerk), user_id=clerk.id, changes=changes)

    def test_clerk_cannot_touch_whoever_holds_more(self, session: Session, clerk: User, aurora: Merchant) -> None:
        """Else resetting a stronger user's password would be a way to become that user."""
        strong = make_user(session, "strong", roles=["operator"], merchants=[aurora])
        acts: list[Callable[..., Any]] = [
            lambda p, i: users.update_user(session, p, user_id=i, changes={"display_name": "x"}),
            lambda p, i: users.disable_user(session, p, user_id=i, reason="x"),
            lambda p, i: users.enable_user(session, p, user_id=i),
            lambda p, i: users.reset_password(session, p, user_id=i),
        ]
        for act in acts:
            with pytest.raises(GrantExceedsOwn):
                act(passport_of(clerk), strong.id)

    def test_users_of_foreign_merchants_do_not_exist_for_the_clerk(
        self, session: Session, clerk: User, root: User, aurora: Merchant, borealis: Merchant
    ) -> None:
        foreign = make_user(session, "foreign", merchants=[borealis])
        both = make_user(session, "both", merchants=[aurora, borealis])
        own = make_user(session, "own", merchants=[aurora])
        passport = passport_of(clerk)
        for user in (foreign, both, root):
            with pytest.raises(UserNotFound):
                queries.get_user(session, passport, user_id=user.id)
            with pytest.raises(UserNotFound):
                users.update_user(session, passport, user_id=user.id, changes={"email": "x"})
        listed = queries.list_users(session, passport, limit=50)["items"]
        assert {u["id"] for u in listed} == {own.id, clerk.id}


class TestDisable:
    def test_disabled_user_is_out_and_comes_back_with_new_sessions_only(
        self, session: Session, as_root: Passport
    ) -> None:
        dora = make_user(session, "dora", roles=["auditor"])
        open_session(session, dora, "ses_1")
        assert queries.introspect_session(session, session_id="ses_1")["active"]
        view = users.disable_user(session, as_root, user_id=dora.id, reason="left the house")
        assert view["status"] == "disabled"
        assert not queries.introspect_session(session, session_id="ses_1")["active"]
        [disabled] = events(session, "UserDisabled")
        assert disabled["payload"]["reason"] == "left the house"
        assert disabled["payload"]["changes"] == {"status": {"before": "active", "after": "disabled"}}
        assert [e["payload"]["why"] for e in events(session, "SessionEnded")] == ["user_disabled"]
        users.enable_user(session, as_root, user_id=dora.id)
        assert not queries.introspect_session(session, session_id="ses_1")["active"]
        assert len(events(session, "UserEnabled")) == 1

    def test_disabling_twice_tells_once(self, session: Session, as_root: Passport) -> None:
        dora = make_user(session, "dora")
        for _ in range(2):
            users.disable_user(session, as_root, user_id=dora.id, reason="x")
        assert len(events(session, "UserDisabled")) == 1

    def test_reset_gives_a_new_password_ends_sessions_and_forgets_failures(
        self, session: Session, as_root: Passport
    ) -> None:
        dora = make_user(session, "dora")
        open_session(session, dora, "ses_1")
        session.add(SignInFailures(username_key="dora", address="a", failures=99))
        view = users.reset_password(session, as_root, user_id=dora.id, reason="forgot it")
        session.refresh(dora)
        assert dora.must_change_password
        assert fits(view["temporary_password"], dora.password_hash)
        assert not queries.introspect_session(session, session_id="ses_1")["active"]
        assert session.scalar(sa.select(SignInFailures)) is None
        assert view["temporary_password"] not in str(events(session))
        hours_left = (parse_rfc3339(view["password_expires_at"] or "") - utc_now()).total_seconds() / 3600
        assert 71.9 < hours_left <= 72

    def test_unknown_user_is_not_found(self, session: Session, as_root: Passport) -> None:
        with pytest.raises(UserNotFound):
            users.disable_user(session, as_root, user_id="usr_unknown", reason="x")


class TestLastAdministrator:
    @pytest.mark.parametrize("changes", [{"roles": []}, {"roles": ["operator"]}, {"merchants": []}])
    def test_last_administrator_is_not_demoted(
        self, session: Session, root: User, as_root: Passport, changes: dict[str, Any]
    ) -> None:
        make_user(session, "disabled", roles=["administrator"], status="disabled")
        make_user(session, "partial", roles=["administrator"], merchants=[])
        with pytest.raises(LastAdministrator):
            users.update_user(session, as_root, user_id=root.id, changes=changes)

    def test_last_administrator_is_not_disabled(self, session: Session, root: User, as_root: Passport) -> None:
        with pytest.raises(LastAdministrator):
            users.disable_user(session, as_root, user_id=root.id, reason="x")

    def test_one_of_two_may_go(self, session: Session, root: User, as_root: Passport) -> None:
        make_user(session, "second", roles=["administrator"])
        assert users.update_user(session, as_root, user_id=root.id, changes={"roles": []})["roles"] == []

    @pytest.mark.parametrize("act", ["demote", "disable"])
    def test_administrators_who_remove_each_other_at_once_leave_one(self, transaction: Transaction, act: str) -> None:
        for round_ in range(5):
            with transaction() as session:
                session.execute(sa.text("truncate user_roles, users cascade"))
                admins = [make_user(session, f"admin{round_}{i}", roles=["administrator"]) for i in range(4)]
            barrier = threading.Barrier(4)
            outcomes: list[str] = []

            def remove(by: User, user: User, barrier: threading.Barrier, outcomes: list[str]) -> None:
                barrier.wait()
                try:
                    with transaction() as session:
                        if act == "demote":
                            users.update_user(session, passport_of(by), user_id=user.id, changes={"roles": []})
                        else:
                            users.disable_user(session, passport_of(by), user_id=user.id, reason="x")
                    outcomes.append("removed")
                except ServiceError as error:
                    outcomes.append(error.code)

            threads = [
                threading.Thread(
                    target=copy_context().run, args=(remove, admins[i], admins[(i + 1) % 4], barrier, outcomes)
                )
                for i in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(outcomes) == ["last_administrator", "removed", "removed", "removed"]
            with transaction() as session:
                left = session.scalars(
                    sa.select(User).where(User.status == "active", User.roles.any(Role.name == "administrator"))
                ).all()
                assert len(left) == 1


class TestList:
    def test_filters_narrow_and_combine(
        self, session: Session, as_root: Passport, aurora: Merchant, borealis: Merchant
    ) -> None:
        a = make_user(session, "anna", roles=["operator"], merchants=[aurora])
        b = make_user(session, "bert", roles=["operator"], merchants=[borealis], status="disabled")
        c = make_user(session, "cora_x", roles=["auditor"])

        def found(**filters: Any) -> set[str]:
            return {u["id"] for u in queries.list_users(session, as_root, limit=50, **filters)["items"]}

        assert found(q="ANN") == {a.id}
        assert found(q="_") == {c.id}  # no wildcard
        assert found(q="%") == set()
        assert found(status="disabled") == {b.id}
        assert found(role="operator") == {a.id, b.id}
        assert found(role="operator", status="active") == {a.id}
        assert {a.id, c.id} <= found(merchant_id=aurora.id)
        assert b.id not in found(merchant_id=aurora.id)

    def test_foreign_merchant_finds_nobody(self, session: Session, clerk: User, borealis: Merchant) -> None:
        page = queries.list_users(session, passport_of(clerk), merchant_id=borealis.id, limit=50)
        assert page == {"items": [], "next_cursor": None}

    def test_pages_are_newest_first_and_miss_and_repeat_nothing(self, session: Session, as_root: Passport) -> None:
        for i in range(7):
            make_user(session, f"user{i}")
        seen: list[str] = []
        cursor = None
        while True:
            page = queries.list_users(session, as_root, limit=3, cursor=cursor)
            seen += [u["id"] for u in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        everybody = set(session.scalars(sa.select(User.id)))
        assert set(seen) == everybody
        assert seen == sorted(seen, reverse=True)
        assert len(seen) == len(everybody)
