"""Makes an administrator from the command line: `python -m services.users.bootstrap [--username NAME]`.

Without a name it makes the first one, `admin`, once, and prints `{}` when there is one already. The password need not
be changed at the first sign-in: whoever runs this command owns the house, and is the only one who reads it.
"""

import argparse
import json
import sys

import sqlalchemy as sa
from environs import Env
from sqlalchemy.orm import Session

from services.users.models import User
from services.users.usecases.grants import ADMINISTRATOR, has_administrator, lock_administrators
from services.users.usecases.users import create_user
from shared.errors import ServiceError
from shared.passport import Passport, service_passport
from shared.rpc.wire import Call, current_call

FIRST_USERNAME = "admin"


def create_administrator(session: Session, *, username: str | None) -> dict[str, str]:
    """Make an administrator for all merchants.

    username: None for the first one, who is made only where there is none.
    Returns: username and password; nothing where there was one.
    Raises: UsernameTaken.
    Emits: UserCreated.   Locks: the administrators.
    """
    lock_administrators(session)
    if username is None and has_administrator(session):
        return {}
    made = create_user(
        session, _command_line(), username=username or FIRST_USERNAME, roles=[ADMINISTRATOR], merchants="all"
    )
    session.execute(
        sa.update(User).where(User.id == made["id"]).values(must_change_password=False, password_expires_at=None)
    )
    return {"username": made["username"], "password": made["temporary_password"]}


def _command_line() -> Passport:
    return service_passport("users")


def main(arguments: list[str]) -> int:
    """Make the administrator and print name and password as JSON."""
    parser = argparse.ArgumentParser(prog="python -m services.users.bootstrap", description=__doc__)
    parser.add_argument("--username", help="make one more administrator, of this name")
    username = parser.parse_args(arguments).username
    url = sa.make_url(Env().str("DATABASE_URL")).set(drivername="postgresql+psycopg")
    current_call.set(Call(service="users", method="create_user", passport=_command_line(), arguments={}))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with Session(engine) as session, session.begin():
            made = create_administrator(session, username=username)
    except ServiceError as error:
        print(error.detail, file=sys.stderr)
        return 1
    print(json.dumps(made))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
