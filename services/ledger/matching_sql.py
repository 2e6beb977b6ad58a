"""The SQL of reconciliation: one statement that matches a channel's day, in one snapshot, and writes what does not fit.

First the day's records and the day's paid orders are joined as they are, each read once; what agrees is done with.
Whatever is left, a few in a thousand, is judged one by one through indexes, with all that any day knows of it. A
statement that writes has one process; what was paid twice is looked for by a function, which may have more, and sees
what the statement sees.

PostgreSQL may not know yet what came in a moment ago. So what is judged one by one is a lateral join, and it has no
choice of indexes but the one on order numbers: a channel's name with nothing added to it has none.
"""

from typing import Final

import sqlalchemy as sa

# The records and orders that a day is reconciled over, whatever became of them on other days.
_OF_DAY: Final = """
with day_records as not materialized (
    select id, order_no, amount, currency, status
      from upstream_records
     where channel = :channel and voided_by is null and occurred_at >= :starts_at and occurred_at < :ends_at
), day_orders as not materialized (
    select order_no, amount, currency, status
      from orders
     where channel = :channel and settled_at >= :starts_at and settled_at < :ends_at
), odd as materialized (
    select r.id as record_id, o.order_no as paid_order_no
      from day_records r full join day_orders o on o.order_no = r.order_no
     where not coalesce(r.amount = o.amount and r.currency = o.currency
                        and r.status = case o.status when 'refunded' then 'refunded' else 'success' end, false)
), repeated as materialized (
    select record_id from repeated_of_day(:channel, :starts_at, :ends_at)
)"""

# What is open of this day is judged again wherever it went: a record may have moved to another day meanwhile.
_SUSPECTS: Final = """
, open_ones as materialized (
    select id, status, kind, order_no, upstream_ref, record_id
      from mismatches
     where channel = :channel and day = :day and status in ('open', 'pending_approval')
), suspects as (
    select record_id from odd where record_id is not null
    union
    select record_id from repeated
    union
    select record_id from open_ones where record_id is not null
), unpaid as (
    select paid_order_no as order_no from odd where record_id is null
    union
    select order_no from open_ones where kind = 'missing_upstream'
)"""

# One record speaks for its order: the first that says it was paid, else the last that says anything. Another that
# says it was paid is a duplicate; another that does not is a try that came to nothing. Of two of one instant (some
# statements tell only the day) a correction's goes first, in the place of the one that it stands for.
SPEAKS_FIRST: Final = """x.status in ('success', 'refunded') desc,
                         case when x.status in ('success', 'refunded') then x.occurred_at end,
                         case when x.status in ('success', 'refunded') then x.source <> 'correction' end,
                         case when x.status in ('success', 'refunded') then x.id end,
                         x.occurred_at desc, x.id desc"""
_JUDGED: Final = f"""
, judged_records as (
    select r.id as record_id, r.order_no, r.upstream_ref, o.merchant_id, r.currency,
           case when r.status in ('success', 'refunded') and r.id <> speaker.id then 'duplicate_upstream'
                when o.order_no is null then 'missing_local'
                when r.id <> speaker.id then null
                when r.status = 'success' and o.status = 'pending' then 'missing_local_update'
                when r.status <> o.as_upstream then 'status_mismatch'
                when r.status in ('success', 'refunded') and (r.amount, r.currency) <> (o.amount, o.currency)
                then 'amount_mismatch' end as kind,
           case when o.order_no is not null then jsonb_build_object('status', o.status, 'amount', o.amount,
               'currency', o.currency, 'refunded', o.refunded, 'settled_at', o.settled_at) end as local,
           jsonb_build_object('status', r.status, 'amount', r.amount, 'currency', r.currency, 'fee', r.fee,
               'occurred_at', r.occurred_at, 'source', r.source) as upstream,
           array_remove(array[case when r.status <> o.as_upstream then 'status' end,
               case when r.amount <> o.amount then 'amount' end,
               case when r.currency <> o.currency then 'currency' end], null) as differing,
           o.status as local_status, o.amount as local_amount, o.currency as local_currency,
           r.status as upstream_status, r.amount as upstream_amount,
           greatest(r.occurred_at, o.settled_at) as happened_at,
           r.occurred_at >= :starts_at and r.occurred_at < :ends_at as is_of_day
      from suspects s
           cross join lateral (
               select * from upstream_records where id = s.record_id and voided_by is null offset 0
           ) as r
           left join lateral (
               select order_no, merchant_id, status, amount, currency, refunded, settled_at,
                      case status when 'settled' then 'success' when 'partially_refunded' then 'success'
                                  else status end as as_upstream
                 from orders where order_no = r.order_no and channel || '' = :channel offset 0
           ) as o on true
           left join lateral (
               select x.id
                 from upstream_records x
                where x.channel || '' = :channel and x.order_no = r.order_no and x.voided_by is null
                order by {SPEAKS_FIRST}
                limit 1
           ) as speaker on true
), judged_orders as (
    select null::bigint as record_id, o.order_no, null::text as upstream_ref, o.merchant_id, o.currency,
           'missing_upstream' as kind,
           jsonb_build_object('status', o.status, 'amount', o.amount, 'currency', o.currency,
               'refunded', o.refunded, 'settled_at', o.settled_at) as local,
           null::jsonb as upstream, array[]::text[] as differing,
           o.status as local_status, o.amount as local_amount, o.currency as local_currency,
           null::text as upstream_status, 0::bigint as upstream_amount, o.settled_at as happened_at,
           o.settled_at >= :starts_at and o.settled_at < :ends_at as is_of_day
      from unpaid u
           cross join lateral (
               select * from orders
                where order_no = u.order_no and channel || '' = :channel and settled_at is not null offset 0
           ) as o
           left join lateral (
               select true as is_there from upstream_records x
                where x.channel || '' = :channel and x.order_no = o.order_no and x.voided_by is null limit 1
           ) as record on true
     where record.is_there is null
)"""

# What may still come right waits for its grace, unless it is open already: what was found stays found until it is
# right. `difference` is what the platform says was paid in the end, less what we say.
_UNFIT: Final = """
, unfit as materialized (
    select j.*,
           j.kind not in ('amount_mismatch', 'duplicate_upstream')
           and j.happened_at + make_interval(secs => :grace_seconds) > :judged_at
           and (j.kind, coalesce(j.order_no, ''), coalesce(j.upstream_ref, '')) not in (
               select kind, coalesce(order_no, ''), coalesce(upstream_ref, '') from open_ones) as is_expected,
           case j.kind when 'amount_mismatch' then j.upstream_amount
                when 'duplicate_upstream' then j.upstream_amount
                else case when j.upstream_status = 'success' then j.upstream_amount else 0 end end
           - case when j.kind = 'duplicate_upstream' or j.local_currency <> j.currency then 0
                  when j.kind = 'amount_mismatch' then j.local_amount
                  when j.local_status in ('settled', 'partially_refunded') then j.local_amount
                  when j.kind = 'missing_upstream' then j.local_amount
                  else 0 end as difference
      from (select * from judged_records union all select * from judged_orders) as j
     where j.kind is not null
)"""

# The compared values of both sides: a mismatch that a person closed is open again when one of them is another.
_COMPARED: Final = "array['refunded', 'settled_at', 'fee', 'occurred_at', 'source']"
_IS_OPEN: Final = "m.status in ('open', 'pending_approval')"
_REOPENS: Final = f"""(not {_IS_OPEN} and (m.resolution = 'healed'
    or m.local - {_COMPARED} is distinct from excluded.local - {_COMPARED}
    or m.upstream - {_COMPARED} is distinct from excluded.upstream - {_COMPARED}))"""
_CHANGES: Final = f"""({_REOPENS} or ({_IS_OPEN}
    and (m.local, m.upstream) is distinct from (excluded.local, excluded.upstream)))"""


def _unless_closed(column: str) -> str:
    """Return the assignment that leaves a closed mismatch's sides as whoever closed it saw them."""
    return f"{column} = case when {_IS_OPEN} or {_REOPENS} then excluded.{column} else m.{column} end"


# What is open of the day and fits now has healed. Both sets are grouped rather than joined: each may be a day's whole,
# which PostgreSQL would not expect, and would loop over.
_HEALING: Final = f"""
, healed_ones as (
    select max(id) as id, max(status) as status
      from (select id, status, kind, order_no, upstream_ref, 0 as is_unfit from open_ones
            union all
            select null, null, kind, order_no, upstream_ref, 1 from unfit) as both_of
     group by kind, order_no, upstream_ref
    having max(is_unfit) = 0
), healing as (
    update mismatches m
       set status = 'reconciled', resolution = 'healed', version = version + 1, updated_at = clock_timestamp()
      from healed_ones h
     where m.id = h.id and {_IS_OPEN}
    returning m.id, m.kind, m.order_no, m.upstream_ref, m.merchant_id, m.currency, m.difference,
              h.status as status_before
), healing_noted as (
    insert into mismatch_history (mismatch_id, act, status_before, status_after, actor_id, actor_name, actor_type,
        request_id)
    select id, 'heal', status_before, 'reconciled', 'system', 'system', 'system', :request_id from healing
)"""

_FINDING: Final = f"""
, counted as materialized (
    select (select count(*) from day_records) as records,
           (select count(*) from day_orders) as orders,
           (select count(*) from unfit where is_of_day and record_id is not null) as unfit_records,
           (select count(*) from unfit where is_expected) as expected,
           (select count(*) from unfit where not is_expected) as found,
           (select count(*) from healing) as healed
), running as (
    insert into reconciliations (id, channel, day, zone_name, records, orders, matched, expected, found, healed,
        previous_id, actor_id, actor_name, request_id, started_at)
    select :run_id, :channel, :day, :zone_name, records, orders, records - unfit_records, expected, found, healed,
           :previous_id, :actor_id, :actor_name, :request_id, :judged_at
      from counted
), finding as (
    insert into mismatches as m (id, channel, day, kind, order_no, merchant_id, record_id, upstream_ref, local,
        upstream, differing, currency, difference, found_by, seen_by)
    select :stem || lpad(to_hex(row_number() over ()), 6, '0'), :channel, :day, kind, order_no, merchant_id, record_id,
           upstream_ref, local, upstream, differing, currency, difference, :run_id, :run_id
      from unfit
     where not is_expected
        on conflict on constraint uq_mismatches_subject do update
       set seen_by = excluded.seen_by,
           day = excluded.day,
           merchant_id = excluded.merchant_id,
           record_id = excluded.record_id,
           {_unless_closed("local")},
           {_unless_closed("upstream")},
           {_unless_closed("differing")},
           {_unless_closed("currency")},
           {_unless_closed("difference")},
           found_by = case when {_REOPENS} then excluded.found_by else m.found_by end,
           opened_at = case when {_REOPENS} then clock_timestamp() else m.opened_at end,
           updated_at = case when {_CHANGES} then clock_timestamp() else m.updated_at end,
           version = m.version + case when {_CHANGES} then 1 else 0 end,
           resolution = case when {_REOPENS} then null else m.resolution end,
           status = case when {_REOPENS} then 'open' else m.status end
    returning m.id
), seeing as (
    insert into mismatch_sightings (reconciliation_id, mismatch_id) select :run_id, id from finding
)
select * from healing order by id limit :told_max + 1
"""

# Returns the first of what has healed.
MATCH: Final = sa.text(_OF_DAY + _SUSPECTS + _JUDGED + _UNFIT + _HEALING + _FINDING)

# A proposal waits only as long as its mismatch does, or, to reverse a correction, as long as that stands. This comes
# after the mismatches are locked: a proposal that was made while they were matched is seen too.
VOID_PROPOSALS: Final = sa.text(
    """
    update corrections c
       set status = 'void', decided_at = clock_timestamp()
      from mismatches m
     where c.status = 'proposed' and m.id = c.mismatch_id and m.channel = :channel and m.day = :day
       and m.status not in ('pending_approval', 'corrected')
    """
)

# What this run opened: found for the first time, or again after it was closed. Sorted by a sum, since the index on it
# would be read from its end, through all the history, for each that has none.
NOTE_FOUND: Final = sa.text(
    """
    insert into mismatch_history (mismatch_id, act, status_before, status_after, actor_id, actor_name, actor_type,
        request_id)
    select m.id, 'find',
           (select h.status_after from mismatch_history h where h.mismatch_id = m.id order by h.id + 0 desc limit 1),
           'open', 'system', 'system', 'system', :request_id
      from mismatches m join mismatch_sightings s on s.mismatch_id = m.id and s.reconciliation_id = :run_id
     where m.found_by = :run_id
    """
)
