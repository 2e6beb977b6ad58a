"""The SQL of the daily checks: of each, what is expected and what is there, order by order, as its parts."""

from typing import Final

from services.ledger.domain.figures import BUCKETS

RECHARGE, CONSUMPTION, LARGE, REFUNDS = "recharge_total", "consumption_total", "large_changes", "refunds_complete"
_CONSUMING_KINDS: Final = "('payment', 'purchase', 'renewal', 'paid_reset')"
_ADVANCE_RESET: Final = 232  # the one that consumes and need not name an order
_CARD_TYPES: Final = "(511, 512)"  # each is explained by its card's transfer
_MINE: Final = "(cast(:merchants as text[]) is null or {}.merchant_id = any(:merchants))"


def _types(*buckets: str) -> str:
    return f"({', '.join(str(code) for bucket in buckets for code in BUCKETS[bucket])})"


def _posted(*buckets: str, sign: int) -> str:
    """Return the parts that entries of the day make; a correction counts on the day that it corrects."""
    return f"""
        select e.order_no, null::text as upstream_ref, e.merchant_id, e.currency, e.channel, 0::bigint as expected,
               {sign} * e.amount as actual
          from entries e
         where e.created_at >= :starts_at and e.created_at < :ends_at and e.type in {_types(*buckets)}
           and {_MINE.format("e")}
           and not exists (select from correction_entries c
                            where c.account_id = e.account_id and c.version = e.version)
        union all
        select c.order_no, null, c.merchant_id, c.currency, c.channel, 0, {sign} * c.amount
          from correction_entries c
         where c.day = :day and c.bucket in ({", ".join(f"'{bucket}'" for bucket in buckets)})
           and {_MINE.format("c")}
    """


# A record counts on the day on which its order was settled, whatever side of midnight it stands on; one of no settled
# order on its own. One that names no order of ours counts as a recharge: somebody paid something in.
_OF_PLATFORM: Final = f"""
    select r.order_no, r.upstream_ref, o.merchant_id, r.currency, r.channel, r.amount as expected, 0::bigint as actual
      from orders o join upstream_records r on r.channel = o.channel and r.order_no = o.order_no
     where o.settled_at >= :starts_at and o.settled_at < :ends_at and o.kind = 'recharge'
       and r.voided_by is null and r.status = 'success' and {_MINE.format("o")}
    union all
    select r.order_no, r.upstream_ref, o.merchant_id, r.currency, r.channel, r.amount, 0
      from upstream_records r left join orders o on o.order_no = r.order_no and o.channel = r.channel
     where r.occurred_at >= :starts_at and r.occurred_at < :ends_at and r.voided_by is null and r.status = 'success'
       and (o.order_no is null or (o.settled_at is null and o.kind = 'recharge')) and {_MINE.format("o")}
"""
_OF_ORDERS: Final = f"""
    select o.order_no, null::text as upstream_ref, o.merchant_id, o.currency, o.channel, o.amount as expected,
           0::bigint as actual
      from orders o
     where o.settled_at >= :starts_at and o.settled_at < :ends_at and o.kind in {_CONSUMING_KINDS}
       and {_MINE.format("o")}
    union all
    select null, null, e.merchant_id, e.currency, e.channel, -e.amount, 0
      from entries e
     where e.created_at >= :starts_at and e.created_at < :ends_at and e.type = {_ADVANCE_RESET}
       and e.order_no is null and {_MINE.format("e")}
"""
# Of each order that the day's refunds are about: what it says was given back, against what ever was.
_OF_REFUNDS: Final = f"""
    select t.order_no, null::text as upstream_ref, t.merchant_id, t.currency, o.channel,
           coalesce(o.refunded, 0)::bigint as expected,
           (select coalesce(sum(amount), 0)
              from (select amount from entries e
                     where e.order_no = t.order_no and e.merchant_id = t.merchant_id and e.currency = t.currency
                       and e.type in {_types("refund")}
                    union all
                    select amount from correction_entries c
                     where c.order_no = t.order_no and c.merchant_id = t.merchant_id and c.currency = t.currency
                       and c.bucket = 'refund'
                    union all
                    select amount from archived_refunds a
                     where a.order_no = t.order_no and a.merchant_id = t.merchant_id and a.currency = t.currency
                   ) as given_back)::bigint as actual
      from (select e.order_no, e.merchant_id, e.currency
              from entries e
             where e.created_at >= :starts_at and e.created_at < :ends_at and e.type in {_types("refund")}
               and {_MINE.format("e")}
            union
            select o.order_no, o.merchant_id, o.currency
              from order_history h join orders o on o.id = h.order_id
             where h.act = 'refund' and h.created_at >= :starts_at and h.created_at < :ends_at
               and {_MINE.format("o")}) as t
           left join orders o on o.order_no = t.order_no and o.merchant_id = t.merchant_id and o.currency = t.currency
"""
EXPECTED: Final = {RECHARGE: _OF_PLATFORM, CONSUMPTION: _OF_ORDERS, REFUNDS: _OF_REFUNDS}
PARTS: Final = {
    RECHARGE: f"{_OF_PLATFORM} union all {_posted('recharge', sign=1)}",
    CONSUMPTION: f"{_OF_ORDERS} union all {_posted('consumption', 'resets', sign=-1)}",
    REFUNDS: _OF_REFUNDS,
}
# A large change says why it is there by its order or by its reason.
LARGE_ENTRIES: Final = f"""
    from entries e
   where e.created_at >= :starts_at and e.created_at < :ends_at and {_MINE.format("e")}
     and abs(e.amount) >= (cast(:thresholds as jsonb) ->> e.currency)::bigint
     and e.reason is null and e.type not in {_CARD_TYPES}
     and not exists (select from orders o where o.order_no = e.order_no and o.merchant_id = e.merchant_id)
"""

# The rows behind a check, after a place in the order of their subjects: of no channel where that is ''.
ROWS: Final = """
    select coalesce('o' || order_no, 'r' || upstream_ref, '') as subject, currency,
           coalesce(channel, '') as channel, order_no,
           min(upstream_ref) as upstream_ref, max(merchant_id) as merchant_id, null::bigint as account_id,
           null::bigint as version, sum(expected) as expected, sum(actual) as actual
      from ({parts}) as part
     where (cast(:currency as text) is null or currency = :currency)
       and (cast(:channel as text) is null or coalesce(channel, '') = :channel)
       and (coalesce('o' || order_no, 'r' || upstream_ref, ''), currency, coalesce(channel, ''))
           > (cast(:after as text), cast(:after_currency as text), cast(:after_channel as text))
     group by 1, 2, 3, 4
    having :is_all or sum(expected) <> sum(actual)
     order by 1, 2, 3
     limit :limit
"""
LARGE_ROWS: Final = f"""
    select *
      from (select lpad(e.account_id::text, 19, '0') || lpad(e.version::text, 19, '0') as subject, e.currency,
                   coalesce(e.channel, '') as channel, e.order_no, null::text as upstream_ref, e.merchant_id,
                   e.account_id, e.version, 0 as expected, e.amount as actual
              {LARGE_ENTRIES}) as large
     where (cast(:currency as text) is null or currency = :currency)
       and (cast(:channel as text) is null or channel = :channel)
       and subject > :after
     order by subject
     limit :limit
"""
