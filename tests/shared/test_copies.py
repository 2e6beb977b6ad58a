"""A service's copies, while its database is away."""

import pytest

from shared.copies import Merchants
from shared.database import Database, DatabaseUnavailable, make_engine


def test_who_needs_a_merchant_while_the_database_is_away_hears_so(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database()
    database.engine = make_engine("postgresql://nobody@127.0.0.1:1/nothing", connections_max=1)
    merchants = Merchants()
    monkeypatch.setattr(merchants, "_database", lambda: database)
    with pytest.raises(DatabaseUnavailable):
        merchants.ensure(["mer_x"])
