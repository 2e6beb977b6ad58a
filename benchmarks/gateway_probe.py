"""The processes that `benchmarks/gateway.py` measures: the gateway with three more routes, the service behind them,
and the floor, which is the same work by Flask and psycopg alone.

`python -m benchmarks.gateway_probe gateway|floor`; the service is run by `shared.runner`.
"""

import os
import sys
from typing import Any

from gateway.__main__ import Gateway

TABLE = "create table if not exists rows (id bigint generated always as identity primary key, payload text not null)"
INSERT = "insert into rows (payload) values (%(payload)s) returning id"
PAYLOAD = "x" * 100


class ProbeGateway(Gateway):
    """The gateway as it is, with the probe's routes beside its own."""

    def load(self) -> Any:
        """Return the application, within the worker that serves it."""
        from benchmarks.gateway_routes import blueprint
        from gateway.process import start

        return start(further=[blueprint])


class Floor(Gateway):
    """Flask and psycopg alone, served by the same gunicorn with the same settings."""

    def load(self) -> Any:
        """Return the application, within the worker that serves it."""
        import orjson
        import sqlalchemy as sa
        from flask import Flask, Response

        app = Flask("floor")
        engine = sa.create_engine(os.environ["DATABASE_URL"], pool_size=16, max_overflow=0)

        def answer(value: Any) -> Response:
            return Response(orjson.dumps(value), content_type="application/json")

        @app.get("/noop")
        def noop() -> Response:
            return answer({"id": 1})

        @app.post("/insert")
        def insert() -> Response:
            with engine.begin() as connection:
                row_id = connection.exec_driver_sql(INSERT, {"payload": PAYLOAD}).scalar_one()
            return answer({"id": row_id})

        return app


if __name__ == "__main__":
    {"gateway": ProbeGateway, "floor": Floor}[sys.argv[1]]().run()
