"""The migrations and the models say the same."""

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.users.models import Base
from shared import kernel_tables


def test_models_are_what_the_migrations_made(users_engine: sa.Engine) -> None:
    not_ours = {*kernel_tables.metadata.tables, "alembic_version"}

    def is_ours(thing: object, name: str | None, type_: str, _reflected: bool, _other: object) -> bool:
        return not (type_ == "table" and name in not_ours)

    with users_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_ours, "compare_type": False})
        assert compare_metadata(context, Base.metadata) == []
