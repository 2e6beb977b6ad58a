"""The first administrator is made once, and can begin right away."""

import json
import threading
from contextvars import copy_context

import pytest
import sqlalchemy as sa

from services.users import bootstrap
from services.users.models import User
from services.users.sealing import SecretCipher
from services.users.tokens import SigningKeys
from services.users.usecases import sessions
from shared.passport import Passport
from tests.services.users.conftest import Transaction, events, make_user


@pytest.fixture
def database_url(users_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", users_engine.url.render_as_string(hide_password=False))


@pytest.mark.usefixtures("database_url")
class TestBootstrap:
    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
        assert bootstrap.main(list(arguments)) == 0
        printed: dict[str, str] = json.loads(capsys.readouterr().out)
        return printed

    def test_first_administrator_signs_in_with_what_is_printed(
        self,
        transaction: Transaction,
        keys: SigningKeys,
        cipher: SecretCipher,
        anybody: Passport,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        made = self.run(capsys)
        with transaction() as session:
            assert session.scalars(sa.select(User.password_expires_at)).all() == [None]  # nobody waits for it
        pair = sessions.sign_in(transaction, keys, cipher, anybody, **made)
        assert not pair["must_change_password"]
        with transaction() as session:
            view = session.scalars(sa.select(User)).one().view()
            [event] = events(session, "UserCreated")
        assert (view["roles"], view["merchants"]) == (["administrator"], "all")
        assert (event["actor"]["type"], event["action"]) == ("service", "users.create_user")

    def test_there_is_no_second_first_one(self, transaction: Transaction, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(capsys)["username"] == "admin"
        assert self.run(capsys) == {}
        with transaction() as session:
            assert len(session.scalars(sa.select(User)).all()) == 1

    def test_two_who_start_at_once_make_one(self, transaction: Transaction) -> None:
        made: list[dict[str, str]] = []

        def make(barrier: threading.Barrier) -> None:
            barrier.wait()
            with transaction() as session:
                made.append(bootstrap.create_administrator(session, username=None))

        barrier = threading.Barrier(3)
        threads = [threading.Thread(target=copy_context().run, args=(make, barrier)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(len(m) for m in made) == [0, 0, 2]

    def test_one_more_is_made_by_name_and_a_taken_name_is_refused(
        self, transaction: Transaction, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with transaction() as session:
            make_user(session, "root", roles=["administrator"])
        assert self.run(capsys, "--username", "dora")["username"] == "dora"
        assert bootstrap.main(["--username", "Dora"]) == 1
        assert "username" in capsys.readouterr().err
