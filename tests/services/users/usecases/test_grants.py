"""Grants that end by themselves: while they last, when they end, and who may give them."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.users import queries
from services.users.models import EndingGrant, Merchant, User, UserSession
from services.users.usecases import api_keys, grants, roles, users
from shared.contracts.users import GrantExceedsOwn, LastAdministrator, RoleInUse, UserNotFound
from shared.errors import InvalidRequest
from shared.passport import Passport
from shared.times import rfc3339, utc_now
from tests.services.users.conftest import Transaction, events, make_user, passport_of

Give = Callable[..., None]


def in_hours(hours: float) -> str:
    return rfc3339(utc_now() + timedelta(hours=hours))


@pytest.fixture
def dora(session: Session, aurora: Merchant) -> User:
    """An auditor of Aurora, with a session that is open."""
    dora = make_user(session, "dora", roles=["auditor"], merchants=[aurora])
    late = utc_now().replace(year=2999)
    session.add(UserSession(id="ses_dora", user_id=dora.id, address="a", ip="a", user_agent="", expires_at=late))
    session.flush()
    return dora


@pytest.fixture
def give(session: Session, as_root: Passport, dora: User) -> Give:
    def give(*wanted: dict[str, Any], to: User = dora, by: Passport = as_root) -> None:
        users.update_user(session, by, user_id=to.id, changes={"grants": list(wanted)})

    return give


def pass_the_end(session: Session) -> None:
    """Let every grant be over, as waiting would."""
    session.execute(sa.update(EndingGrant).values(ends_at=utc_now() - timedelta(hours=1)))
    session.expire_all()


def state(session: Session) -> dict[str, Any]:
    return dict(queries.introspect_session(session, session_id="ses_dora"))


class TestWhileItLasts:
    def test_role_and_merchant_are_held_until_their_time_and_no_longer(
        self, session: Session, give: Give, dora: User, aurora: Merchant, borealis: Merchant
    ) -> None:
        give(
            {"role": "operator", "ends_at": in_hours(1)},
            {"merchant_id": borealis.id, "ends_at": in_hours(1)},
        )
        held = state(session)
        assert (held["permissions"]["cards"], held["merchants"]) == ("operate", sorted([aurora.id, borealis.id]))
        assert held["valid_until"] == rfc3339(min(grant.ends_at for grant in dora.ending_grants))
        pass_the_end(session)
        held = state(session)  # before anything has ended it
        assert (held["permissions"]["cards"], held["merchants"]) == ("read", [aurora.id])
        assert held["valid_until"].startswith("2999")  # the session's own end
        assert queries.get_user(session, passport_of(dora), user_id=dora.id).view()["grants"] == []

    def test_every_view_tells_what_is_held_now_and_what_ends(
        self, session: Session, give: Give, dora: User, aurora: Merchant, borealis: Merchant, as_root: Passport
    ) -> None:
        end = in_hours(1)
        give({"role": "operator", "ends_at": end}, {"merchant_id": borealis.id, "ends_at": end})
        view = queries.get_user(session, as_root, user_id=dora.id).view()
        assert (view["roles"], view["merchants"]) == (["auditor"], [aurora.id])  # what lasts
        assert {(g["role"], g["merchant_id"], g["ends_at"], g["granted_by"]) for g in view["grants"]} == {
            ("operator", None, end, as_root.actor_id),
            (None, borealis.id, end, as_root.actor_id),
        }
        both = sorted([aurora.id, borealis.id])
        access = queries.get_user_access(session, as_root, user_id=dora.id)
        assert [role["name"] for role in access["roles"]] == ["auditor", "operator"]
        assert (access["permissions"]["cards"], access["merchants"]) == ("operate", both)
        assert access["grants"] == view["grants"]
        me = queries.get_me(session, passport_of(dora))
        assert (me["roles"], me["merchants"], me["grants"]) == (["auditor", "operator"], both, view["grants"])
        holders = queries.list_permission_holders(
            session, as_root, permission="cards:operate", merchant_id=borealis.id, limit=50
        )["items"]
        assert [(h["name"], h["roles"], h["merchants"]) for h in holders if h["name"] == "dora"] == [
            ("dora", ["operator"], both)
        ]

    def test_filters_find_whoever_holds_it_for_a_time(
        self, session: Session, give: Give, borealis: Merchant, as_root: Passport
    ) -> None:
        def found(**filters: Any) -> list[str]:
            return [u["username"] for u in queries.list_users(session, as_root, limit=50, **filters)["items"]]

        assert "dora" not in found(role="operator") + found(merchant_id=borealis.id)
        give({"role": "operator", "ends_at": in_hours(1)}, {"merchant_id": borealis.id, "ends_at": in_hours(1)})
        assert "dora" in found(role="operator")
        assert "dora" in found(merchant_id=borealis.id)
        pass_the_end(session)
        assert "dora" not in found(role="operator") + found(merchant_id=borealis.id)

    def test_whoever_sees_a_foreign_merchant_for_a_time_does_not_exist_meanwhile(
        self, session: Session, give: Give, dora: User, aurora: Merchant, borealis: Merchant
    ) -> None:
        clerk = passport_of(make_user(session, "clerk", roles=["administrator"], merchants=[aurora]))
        assert queries.get_user(session, clerk, user_id=dora.id).id == dora.id
        give({"merchant_id": borealis.id, "ends_at": in_hours(1)})
        with pytest.raises(UserNotFound):
            queries.get_user(session, clerk, user_id=dora.id)

    def test_change_is_told_with_before_and_after_and_an_equal_list_changes_nothing(
        self, session: Session, give: Give
    ) -> None:
        end = in_hours(1)
        give({"role": "operator", "ends_at": end})
        give({"role": "operator", "ends_at": end})
        [told] = events(session, "UserUpdated")
        assert told["payload"]["changes"]["grants"]["before"] == []
        assert told["payload"]["changes"]["grants"]["after"][0]["role"] == "operator"

    def test_a_list_replaces_lengthens_and_takes_away(self, session: Session, give: Give, dora: User) -> None:
        give({"role": "operator", "ends_at": in_hours(1)})
        later = in_hours(2)
        give({"role": "operator", "ends_at": later})
        assert [g.ends_at for g in dora.ending_grants] == [datetime.fromisoformat(later)]
        give()
        assert dora.ending_grants == []
        assert state(session)["permissions"]["cards"] == "read"

    def test_new_user_may_hold_everything_for_a_time(self, session: Session, as_root: Passport) -> None:
        view = users.create_user(
            session, as_root, username="temp", grants=[{"role": "auditor", "ends_at": in_hours(8)}]
        )
        assert [g["role"] for g in view["grants"]] == ["auditor"]

    def test_role_that_somebody_holds_for_a_time_is_in_use(
        self, session: Session, give: Give, as_root: Passport
    ) -> None:
        roles.create_role(session, as_root, name="teller", permissions={"ledger": "operate"})
        give({"role": "teller", "ends_at": in_hours(1)})
        with pytest.raises(RoleInUse):
            roles.delete_role(session, as_root, name="teller")

    @pytest.mark.parametrize(
        "wanted",
        [
            [{"role": "operator", "ends_at": "2001-01-01T00:00:00Z"}],
            [{"role": "chef", "ends_at": "2999-01-01T00:00:00Z"}],
            [{"merchant_id": "mer_unknown", "ends_at": "2999-01-01T00:00:00Z"}],
            [{"ends_at": "2999-01-01T00:00:00Z"}],
            [{"role": "operator", "ends_at": "soon"}],
            [{"role": "operator", "ends_at": f"29{year}-01-01T00:00:00Z"} for year in (97, 98)],
        ],
    )
    def test_what_makes_no_sense_is_refused(self, give: Give, wanted: list[dict[str, Any]]) -> None:
        with pytest.raises(InvalidRequest):
            give(*wanted)


class TestEnd:
    def test_end_is_told_once_and_names_what_ended(
        self, session: Session, give: Give, dora: User, borealis: Merchant
    ) -> None:
        give({"role": "operator", "ends_at": in_hours(1)}, {"merchant_id": borealis.id, "ends_at": in_hours(2)})
        assert grants.end_due_grants(session) == 0
        pass_the_end(session)
        assert grants.end_due_grants(session) == 2
        assert grants.end_due_grants(session) == 0
        told = [event["payload"] for event in events(session, "GrantEnded")]
        assert {(p["user_id"], p["role"], p["merchant_id"]) for p in told} == {
            (dora.id, "operator", None),
            (dora.id, None, borealis.id),
        }

    def test_of_two_instances_one_tells(self, transaction: Transaction, users_engine: sa.Engine) -> None:
        with transaction() as session:
            user = make_user(session, "dora")
            past = utc_now() - timedelta(hours=1)
            session.add(EndingGrant(id="grt_1", user_id=user.id, role_name="auditor", ends_at=past, granted_by="x"))
        with Session(users_engine) as one, Session(users_engine) as other:
            assert grants.end_due_grants(one) == 1
            seen: list[int] = []
            meanwhile = threading.Thread(target=lambda: seen.append(grants.end_due_grants(other)))
            meanwhile.start()
            meanwhile.join(5)
            assert seen == [0]  # it neither waits for the other nor tells too
            one.commit()


class TestWhoMayGive:
    @pytest.fixture
    def helper(self, session: Session, give: Give, as_root: Passport, aurora: Merchant) -> User:
        """Somebody who administers users for good, and cards and Borealis for an hour."""
        roles.create_role(session, as_root, name="clerk", permissions={"users": "admin"})
        roles.create_role(session, as_root, name="cards", permissions={"cards": "admin"})
        return make_user(session, "helper", roles=["clerk"], merchants=[aurora])

    def passport(self, user: User) -> Passport:
        """Return the passport of what a user holds at this instant."""
        held = user.grant()
        return Passport(
            actor_id=user.id,
            actor_name=user.username,
            actor_type="user",
            permissions=held.permissions,
            merchants=held.merchants,
            session_id="ses_helper",
        )

    def test_what_one_holds_for_a_time_is_given_on_for_no_longer(
        self, session: Session, give: Give, helper: User, borealis: Merchant, as_root: Passport
    ) -> None:
        end = in_hours(1)
        give({"role": "cards", "ends_at": end}, {"merchant_id": borealis.id, "ends_at": end}, to=helper)
        by = self.passport(helper)
        friend = make_user(session, "friend", merchants=[])
        give({"role": "cards", "ends_at": end}, {"merchant_id": borealis.id, "ends_at": end}, to=friend, by=by)
        give({"role": "cards", "ends_at": in_hours(0.5)}, to=friend, by=by)
        for beyond in ({"role": "cards", "ends_at": in_hours(2)}, {"merchant_id": borealis.id, "ends_at": in_hours(2)}):
            with pytest.raises(GrantExceedsOwn):
                give(beyond, to=friend, by=by)

    @pytest.mark.parametrize("lasting", ["role", "merchant", "user", "key", "new role"])
    def test_what_one_holds_for_a_time_cannot_be_made_to_last(
        self, session: Session, give: Give, helper: User, borealis: Merchant, as_root: Passport, lasting: str
    ) -> None:
        end = in_hours(1)
        give({"role": "cards", "ends_at": end}, {"merchant_id": borealis.id, "ends_at": end}, to=helper)
        by = self.passport(helper)
        friend = make_user(session, "friend", merchants=[])
        acts: dict[str, Callable[[], Any]] = {
            "role": lambda: users.update_user(session, by, user_id=friend.id, changes={"roles": ["cards"]}),
            "merchant": lambda: users.update_user(session, by, user_id=friend.id, changes={"merchants": [borealis.id]}),
            "user": lambda: users.create_user(session, by, username="other", roles=["cards"]),
            "key": lambda: api_keys.create_api_key(session, by, name="key", roles=["cards"], merchants=[]),
            "new role": lambda: roles.create_role(session, by, name="mine", permissions={"cards": "admin"}),
        }
        with pytest.raises(GrantExceedsOwn):
            acts[lasting]()

    def test_a_key_may_last_as_long_as_what_it_opens_is_held(self, session: Session, give: Give, helper: User) -> None:
        end = in_hours(1)
        give({"role": "cards", "ends_at": end}, to=helper)
        by = self.passport(helper)
        api_keys.create_api_key(session, by, name="key", roles=["cards"], merchants=[], expires_at=end)
        with pytest.raises(GrantExceedsOwn):
            api_keys.create_api_key(session, by, name="key", roles=["cards"], merchants=[], expires_at=in_hours(2))

    def test_nobody_gives_for_a_time_what_they_do_not_hold(self, session: Session, give: Give, helper: User) -> None:
        friend = make_user(session, "friend", merchants=[])
        for beyond in ({"role": "cards"}, {"merchant_id": "mer_unknown"}):
            with pytest.raises(GrantExceedsOwn):
                give({**beyond, "ends_at": in_hours(0.1)}, to=friend, by=self.passport(helper))

    def test_administrator_for_a_time_is_not_the_one_who_stays(
        self, session: Session, give: Give, root: User, as_root: Passport
    ) -> None:
        deputy = make_user(session, "deputy")
        give({"role": "administrator", "ends_at": in_hours(10_000)}, to=deputy)
        with pytest.raises(LastAdministrator):
            users.disable_user(session, as_root, user_id=root.id, reason="gone")
        with pytest.raises(LastAdministrator):
            users.update_user(session, as_root, user_id=root.id, changes={"roles": []})
