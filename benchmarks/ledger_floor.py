"""The floors that posting is measured against: the same work by one SQL function, and by Flask and psycopg alone.

`python -m benchmarks.ledger_floor` serves the latter. The function is the plainest that keeps a ledger: lock the
accounts in order, running sums by windows, one update, one insert; no keys, no events, no answers, one index.
"""

import os
import time
from typing import Any, Final

import sqlalchemy as sa

from gateway.__main__ import Gateway

ACCOUNTS: Final = 10_000
FUNDS_MINOR: Final = 10**12

TABLES: Final = f"""
create table floor_accounts (
    id int primary key, balance bigint not null check (balance >= 0), version bigint not null
) with (fillfactor = 50);
create table floor_entries (
    account_id int not null, version bigint not null, amount bigint not null, balance_after bigint not null,
    created_at timestamptz not null default clock_timestamp(), type smallint not null, order_no text not null,
    primary key (account_id, version)
);
create index on floor_entries (order_no, type);
insert into floor_accounts select n, {FUNDS_MINOR}, 0 from generate_series(0, {ACCOUNTS - 1}) n;

create function floor_post(account int, change bigint, order_no text) returns bigint language plpgsql as $$
declare new_balance bigint; new_version bigint;
begin
    update floor_accounts set balance = balance + change, version = version + 1
     where id = account and balance + change >= 0 returning balance, version into new_balance, new_version;
    insert into floor_entries (account_id, version, amount, balance_after, type, order_no)
    values (account, new_version, change, new_balance, 321, order_no);
    return new_balance;
end $$;

create function floor_post_many(accounts int[], changes bigint[], order_nos text[]) returns bigint[]
language plpgsql as $$
declare balances bigint[];
begin
    perform 1 from floor_accounts where id = any(accounts) order by id for update;
    with wanted as (
        select * from unnest(accounts, changes, order_nos) with ordinality as w(account, change, order_no, n)
    ), running as materialized (
        select w.*, a.balance + sum(change) over mine as after, a.version + row_number() over mine as entry
          from wanted w join floor_accounts a on a.id = w.account window mine as (partition by account order by n)
    ), updating as (
        update floor_accounts a set balance = latest.after, version = latest.entry
          from (select distinct on (account) account, after, entry from running order by account, entry desc) latest
         where a.id = latest.account
    ), entering as (
        insert into floor_entries (account_id, version, amount, balance_after, type, order_no)
        select account, entry, change, after, 321, order_no from running
    )
    select array_agg(after order by n) into balances from running;
    return balances;
end $$;
"""


def post_many_per_second(
    engine: sa.Engine, batches: list[tuple[list[int], list[int], list[str]]], *, seconds: float
) -> float:
    """Return the entries a second that arrays in one statement reach, one connection."""
    posted, started = 0, time.perf_counter()
    with engine.connect() as connection:
        while (elapsed := time.perf_counter() - started) < seconds:
            accounts, changes, order_nos = batches[posted % len(batches)]
            connection.exec_driver_sql(
                "select floor_post_many(%(a)s::int[], %(c)s::bigint[], %(o)s::text[])",
                {"a": accounts, "c": changes, "o": order_nos},
            ).scalar_one()
            connection.commit()
            posted += 1
    return posted * len(batches[0][0]) / elapsed


class Floor(Gateway):
    """Flask and psycopg alone, served by the same gunicorn with the same settings as the gateway."""

    def load(self) -> Any:
        """Return the application, within the worker that serves it."""
        import orjson
        from flask import Flask, Response, request

        app = Flask("floor")
        engine = sa.create_engine(os.environ["DATABASE_URL"], pool_size=16, max_overflow=0)

        @app.post("/balance-changes")
        def post_balance_change() -> Response:
            body = orjson.loads(request.get_data())
            account = int(body["user_id"].removeprefix("user-"))
            change = round(float(body["amount"]) * 100)
            with engine.begin() as connection:
                after = connection.exec_driver_sql(
                    "select floor_post(%(a)s, %(c)s, %(o)s)", {"a": account, "c": change, "o": body["order_no"]}
                ).scalar_one()
            return Response(orjson.dumps({"balance": after}), 201, content_type="application/json")

        return app


if __name__ == "__main__":
    Floor().run()
