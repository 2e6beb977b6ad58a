"""The SQL of posting, and how thousands of rows go to it as a few parameters.

A column travels as one string that PostgreSQL splits: psycopg takes 0.5 µs for each element of a list, a join 0.02 µs.
The separator is a control character, which no text of a change may contain; an empty element is null.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa

SEPARATOR: Final = "\x1f"


def texts(values: Iterable[str | None]) -> str:
    """Return a column of text as one string; None becomes null.

    Raises: ValueError for a text with the separator in it, which would shift the column.
    """
    column = [value or "" for value in values]
    joined = SEPARATOR.join(column)
    if joined.count(SEPARATOR) != max(len(column) - 1, 0):
        raise ValueError("a text holds the separator of columns")
    return joined


def integers(values: Iterable[int]) -> str:
    """Return a column of integers as the text of a PostgreSQL array."""
    return "{" + ",".join(map(str, values)) + "}"


def run(connection: sa.Connection, statement: str, parameters: dict[str, Any]) -> Sequence[Any]:
    """Run a statement of this module and return its rows, to be unpacked: a column by name takes ten times as long."""
    return connection.exec_driver_sql(statement, parameters).all()


def _compact(statement: str) -> str:
    """Return the statement without its indentation: psycopg keeps what it has parsed up to 4096 characters."""
    return " ".join(statement.split())


def _texts(*names: str) -> str:
    return ", ".join(f"string_to_array(%({name})s, E'\\x1f', '')" for name in names)


# The first of the two round trips. Of each key: whether another request with it runs right now (the advisory lock is
# that of `shared.idempotency.claim`), and what it answered before. Of each account: its state, locked. Accounts are
# locked in the order of their ids, here and everywhere, or two statements wait for each other. The clock is read
# above the locks, so that an account's entries are in the order of their times.
CLAIM_AND_LOCK: Final = f"""
with claimed as materialized (
    select n, caller, key, pg_try_advisory_xact_lock(hashtextextended(caller || ' ' || key, 0)) as is_mine
      from unnest(%(callers)b::text[], %(keys)b::text[]) with ordinality as w(caller, key, n)
), locked as materialized (
    select w.n, a.id, a.balance, a.held, a.version, a.digest
      from unnest({_texts("merchant_ids", "holder_types", "holder_ids", "currencies")})
           with ordinality as w(merchant_id, holder_type, holder_id, currency, n)
      join accounts a on a.merchant_id = w.merchant_id and a.holder_type = w.holder_type
       and a.holder_id = w.holder_id and a.currency = w.currency and a.wallet = 'balance'
     order by a.id
       for update of a
)
select c.n, c.is_mine, k.request_hash, k.answer, k.error,
       null::bigint as id, null::bigint as balance, null::bigint as held, null::bigint as version,
       null::bytea as digest, null::bigint as at_microseconds
  from claimed c left join idempotency_keys k using (caller, key)
 where not c.is_mine or k.key is not null
union all
select n, null, null, null, null, id, balance, held, version, digest,
       (extract(epoch from clock_timestamp()) * 1000000)::bigint
  from locked
"""

# Ids for accounts that come into being, and the clock where no account was there to lock.
NEW_ACCOUNT_IDS: Final = """
select nextval('account_ids') as id, (extract(epoch from clock_timestamp()) * 1000000)::bigint as at_microseconds
  from generate_series(1, %(count)s)
"""

# Which of some order numbers are those of orders.
ORDERS_NAMED: Final = f"""
select merchant_id, order_no, kind from orders where order_no = any({_texts("order_nos")})
"""

# The second: all that a posting writes, money, events and answers. An account that somebody else opened meanwhile
# is left out of `opened`: the caller then starts again.
WRITE: Final = _compact(f"""
with opening as (
    insert into accounts (id, merchant_id, holder_type, holder_id, currency, balance, version, digest)
    select id, merchant_id, holder_type, holder_id, currency, balance, version,
           substring(%(opened_digests)b from 32 * n::int - 31 for 32)
      from unnest(%(opened_ids)s::bigint[], {_texts("opened_merchant_ids", "opened_holder_types")},
                  {_texts("opened_holder_ids", "opened_currencies")},
                  %(opened_balances)s::bigint[], %(opened_versions)s::bigint[])
           with ordinality as o(id, merchant_id, holder_type, holder_id, currency, balance, version, n)
     order by merchant_id, holder_type, holder_id, currency
        on conflict on constraint uq_accounts_holder do nothing
    returning id
), touching as (
    update accounts a
       set balance = t.balance, version = t.version, updated_at = clock_timestamp(),
           digest = substring(%(touched_digests)b from 32 * t.n::int - 31 for 32)
      from unnest(%(touched_ids)s::bigint[], %(touched_balances)s::bigint[], %(touched_versions)s::bigint[])
           with ordinality as t(id, balance, version, n)
     where a.id = t.id
), entering as (
    insert into entries (account_id, version, amount, balance_before, balance_after, type, counter_account,
        merchant_id, holder_type, holder_id, currency, order_no, channel, note, reason,
        actor_id, actor_name, actor_type, request_id, created_at, digest)
    select account_id, version, amount, balance_after - amount, balance_after, type, counter_account,
           merchant_id, holder_type, holder_id, currency, order_no, channel, note, reason,
           actor_id, actor_name, actor_type, request_id,
           timestamptz 'epoch' + at * interval '1 microsecond', substring(%(digests)b from 32 * n::int - 31 for 32)
      from unnest(%(account_ids)s::bigint[], %(versions)s::bigint[], %(amounts)s::bigint[],
                  %(balances_after)s::bigint[], %(types)s::smallint[],
                  {_texts("counter_accounts", "merchant_ids", "holder_types", "holder_ids", "currencies")},
                  {_texts("order_nos", "channels", "notes", "reasons")},
                  {_texts("actor_ids", "actor_names", "actor_types", "request_ids")}, %(times)s::bigint[])
           with ordinality as e(account_id, version, amount, balance_after, type, counter_account, merchant_id,
                                holder_type, holder_id, currency, order_no, channel, note, reason, actor_id,
                                actor_name, actor_type, request_id, at, n)
), summing as (
    insert into posting_deltas (hour, merchant_id, currency, type, counter_account, channel, entries, increase,
        decrease)
    select timestamptz 'epoch' + hour * interval '1 hour', merchant_id, currency, type, counter_account, channel,
           entries, increase, decrease
      from unnest(%(delta_hours)s::bigint[], {_texts("delta_merchant_ids", "delta_currencies")},
                  %(delta_types)s::smallint[], {_texts("delta_counter_accounts", "delta_channels")},
                  %(delta_entries)s::bigint[],
                  %(delta_increases)s::numeric[], %(delta_decreases)s::numeric[])
           as d(hour, merchant_id, currency, type, counter_account, channel, entries, increase, decrease)
), telling as (
    insert into outbox (event_id, routing_key, envelope)
    select * from unnest(%(event_ids)b::text[], %(routing_keys)b::text[], %(envelopes)b::text[])
), keeping as (
    insert into idempotency_keys (caller, key, request_hash, answer, error)
    select * from unnest(%(callers)b::text[], %(keys)b::text[], %(request_hashes)b::text[], %(answers)b::text[],
                         %(errors)b::text[])
     order by 1, 2
)
select count(*) as opened from opening
""")
