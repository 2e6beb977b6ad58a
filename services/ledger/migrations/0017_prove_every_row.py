"""Keep with each row what proves it: orders and their acts, card transfers, corrections' entries, archives, holders.

Also the totals of archives by channel and quarter of an hour, as precisely as anybody's day begins and ends; and where
the chain of closed days ends, so that its last day is missed if it goes.
"""

import csv
import gzip
import io
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_HOLDERS = """
alter table verified_accounts add column holder text;
alter table archived_openings add column holder text;
update archived_openings o
   set holder = concat_ws(E'\\x1f', a.merchant_id, a.holder_type, a.holder_id, a.currency)
  from accounts a where a.id = o.account_id;
"""

_TOTALS = """
alter table archive_totals rename column hour to quarter;
alter table archive_totals add column channel text;
alter table archive_totals drop constraint uq_archive_totals;
"""
_TOTALS_WRITTEN = """
set constraints all immediate;
alter table archive_totals add constraint uq_archive_totals unique nulls not distinct
    (archive_id, quarter, merchant_id, currency, type, counter_account, channel);
create index ix_archive_totals_quarter on archive_totals (quarter);
"""

# What was summed before there were totals by channel stands under none: they are summed once more.
_HOURS = """
delete from hourly_totals;
insert into hourly_totals (hour, merchant_id, currency, type, channel, entries, increase, decrease)
select hour, merchant_id, currency, type, channel, sum(entries), sum(increase), sum(decrease)
  from (select date_trunc('hour', created_at, 'UTC') as hour, merchant_id, currency, type,
               coalesce(channel, '') as channel, count(*) as entries,
               coalesce(sum(amount) filter (where amount > 0), 0) as increase,
               coalesce(sum(amount) filter (where amount < 0), 0) as decrease
          from entries group by 1, 2, 3, 4, 5
        union all
        select date_trunc('hour', quarter, 'UTC'), merchant_id, currency, type, coalesce(channel, ''), entries,
               increase, decrease
          from archive_totals
        union all
        select hour, merchant_id, currency, type, coalesce(channel, ''), -entries, -increase, -decrease
          from posting_deltas) as part
 group by 1, 2, 3, 4, 5
having sum(entries) <> 0 or sum(increase) <> 0 or sum(decrease) <> 0;
"""

# Of an act that is not its order's last, nobody knows any more what it made of the order.
_ORDERS = """
alter table order_history add column order_digest bytea, add column digest bytea;
update order_history h
   set order_digest = case when h.id = (select max(id) from order_history l where l.order_id = h.order_id)
                           then sha256(convert_to(jsonb_build_array(o.id, o.order_no, o.merchant_id, o.holder_type,
                               o.holder_id, o.kind, o.amount, o.fee, o.fee_percent, o.fee_source, o.refunded, o.held,
                               o.account_id, o.currency, o.fraction_digits, o.channel, o.status, o.upstream_ref,
                               (extract(epoch from o.created_at) * 1000000)::bigint,
                               (extract(epoch from o.settled_at) * 1000000)::bigint)::text, 'UTF8'))
                           else '' end
  from orders o where o.id = h.order_id;

do $$
declare
    acts_max bigint;
begin
    create temporary table numbered on commit drop as
        select id, row_number() over acts as number, lag(id) over acts as previous_id
          from order_history window acts as (partition by order_id order by id);
    create index on numbered (number);
    select coalesce(max(number), 0) into acts_max from numbered;
    for n in 1 .. acts_max loop
        update order_history h
           set digest = sha256(coalesce(p.digest, '') || h.order_digest || convert_to(jsonb_build_array(h.order_id,
                   h.act, h.status_before, h.status_after, h.amount, h.upstream_ref, h.reason, h.actor_id,
                   h.actor_name, h.actor_type, h.request_id,
                   (extract(epoch from h.created_at) * 1000000)::bigint)::text, 'UTF8'))
          from numbered m left join order_history p on p.id = m.previous_id
         where m.number = n and h.id = m.id;
    end loop;
    drop table numbered;
end $$;
"""

_TRANSFERS = """
alter table card_transfers add column digest bytea;
update card_transfers t
   set digest = sha256(convert_to(jsonb_build_array(t.transfer_id, t.card_id, t.merchant_id, t.direction, t.amount,
           t.currency, t.refusal, t.card_account_id, t.card_version, t.card_balance, t.merchant_account_id,
           t.merchant_version, (extract(epoch from t.created_at) * 1000000)::bigint)::text, 'UTF8'));

alter table correction_entries add column digest bytea;
update correction_entries c
   set digest = sha256(convert_to(jsonb_build_array(c.correction_id, c.account_id, c.version, c.order_no,
           c.merchant_id, c.channel, c.bucket, c.day, c.amount, c.currency, c.type,
           (extract(epoch from c.posted_at) * 1000000)::bigint)::text, 'UTF8'));
"""

_ARCHIVES = """
alter table archives add column row_digest bytea;
update archives a
   set row_digest = sha256(a.digest
       || convert_to(jsonb_build_array(a.id, a.number, a.month, a.entries, a.accounts, a.parts, a.size_bytes,
              encode(a.previous_digest, 'hex'), a.reason, a.actor_id, a.actor_name,
              (extract(epoch from a.archived_at) * 1000000)::bigint)::text, 'UTF8')
       || (select coalesce(string_agg(said, '' order by said), '')
             from (select convert_to(jsonb_build_array(p.archive_id, p.part, p.first_account_id, p.last_account_id,
                              p.entries, encode(p.sha256, 'hex'))::text, 'UTF8') as said
                     from archive_parts p where p.archive_id = a.id) as part)
       || (select coalesce(string_agg(said, '' order by said), '')
             from (select convert_to(jsonb_build_array(t.archive_id,
                              (extract(epoch from t.quarter) * 1000000)::bigint, t.merchant_id, t.currency, t.type,
                              t.counter_account, t.channel, t.entries, t.increase, t.decrease)::text, 'UTF8') as said
                     from archive_totals t where t.archive_id = a.id) as total));
"""

_HEADS = """
create table chain_ends (
    chain text not null,
    place text not null,
    digest bytea not null,
    constraint pk_chain_ends primary key (chain)
);

insert into chain_ends (chain, place, digest)
select 'closed_days', day::text, digest from closed_days order by day desc limit 1;

select revoke_from_others('chain_ends', 'delete, truncate, references, trigger');
"""

_QUARTER_MICROSECONDS = 900_000_000
# Where a part's CSV has what totals are of.
_AMOUNT, _TYPE, _COUNTER_ACCOUNT, _MERCHANT_ID, _CURRENCY, _CHANNEL, _AT = 2, 5, 6, 7, 10, 12, 19


def upgrade() -> None:
    op.execute(_HOLDERS)
    op.execute(_TOTALS)
    _sum_archives(op.get_bind())
    for statement in (_TOTALS_WRITTEN, _HOURS, _ORDERS, _TRANSFERS, _ARCHIVES, _HEADS):
        op.execute(statement)


def _sum_archives(connection: sa.Connection) -> None:
    """Sum what is in each archive anew, read off its parts."""
    connection.execute(sa.text("delete from archive_totals"))
    for archive_id in connection.scalars(sa.text("select id from archives order by number")).all():
        sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
        numbers = sa.text("select part from archive_parts where archive_id = :archive_id order by part")
        for part in connection.scalars(numbers, {"archive_id": archive_id}).all():
            reading = sa.text("select content from archive_parts where archive_id = :archive_id and part = :part")
            content = connection.execute(reading, {"archive_id": archive_id, "part": part}).scalar_one()
            for row in csv.reader(io.StringIO(gzip.decompress(content).decode(), newline="")):
                _add(sums, row)
        rows = [
            {
                "archive_id": archive_id,
                "quarter": datetime.fromtimestamp(place[0] * _QUARTER_MICROSECONDS // 1_000_000, UTC),
                **dict(zip(("merchant_id", "currency", "type", "counter_account", "channel"), place[1:], strict=True)),
                **dict(zip(("entries", "increase", "decrease"), totals, strict=True)),
            }
            for place, totals in sums.items()
        ]
        if rows:
            connection.execute(
                sa.text(
                    "insert into archive_totals (archive_id, quarter, merchant_id, currency, type, counter_account,"
                    " channel, entries, increase, decrease) values (:archive_id, :quarter, :merchant_id, :currency,"
                    " :type, :counter_account, :channel, :entries, :increase, :decrease)"
                ),
                rows,
            )


def _add(sums: dict[tuple[Any, ...], list[int]], row: list[str]) -> None:
    amount, quarter = int(row[_AMOUNT]), int(row[_AT]) // _QUARTER_MICROSECONDS
    texts = (row[_MERCHANT_ID], row[_CURRENCY], int(row[_TYPE]), row[_COUNTER_ACCOUNT] or None, row[_CHANNEL] or None)
    totals = sums[quarter, *texts]
    totals[0] += 1
    totals[1 if amount > 0 else 2] += amount
