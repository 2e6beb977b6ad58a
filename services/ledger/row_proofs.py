"""The proof of what is not an account or an entry: orders and their acts, card transfers, corrections, archives.

All of it is part of the full proof (`verification`), and reads the same snapshot.
"""

import gzip
import time
import zlib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.corrections import digest_of
from services.ledger.domain.orders import REFUNDABLE
from services.ledger.models.archives import archive_parts, archives, sealed
from services.ledger.models.card_transfers import card_transfers
from services.ledger.models.mismatches import correction_entries, corrections
from services.ledger.models.orders import order_history, orders
from services.ledger.row_digests import content_of

ROWS_AT_ONCE: Final = 500  # after so many the process's other work has its turn


class Finding(NamedTuple):
    """What is wrong with a row."""

    kind: str
    detail: str
    merchant_id: str | None = None


def findings(session: Session) -> Iterator[Finding]:
    """Yield what is wrong with any of these rows."""
    for kind, statements in _STATEMENTS.items():
        for statement in statements:
            for row in session.execute(sa.text(statement)):
                yield Finding(kind, row.detail, row.merchant_id)
    yield from _proposals(session)
    yield from _contents(session)


# Each act is chained to the one before it; the last one says what the order is.
_ACTS: Final = f"""
with act as (
    select h.id, h.order_id, h.act, h.order_digest, h.digest, lag(h.digest) over acts as previous_digest,
           {content_of(order_history, "h", but=("id",))} as said
      from order_history h window acts as (partition by h.order_id order by h.id)
)
select format('Order %s: its act %s (%s) is not what was noted, or one before it is missing.',
              coalesce(o.order_no, format('of id %s, which is gone', a.order_id)), a.id, a.act) as detail, o.merchant_id
  from act a left join orders o on o.id = a.order_id
 where o.id is null
    or a.digest is distinct from sha256(coalesce(a.previous_digest, '') || a.order_digest || a.said)
 order by a.id
"""
_ORDERS: Final = f"""
select format('Order %s is not what its last act made of it.', o.order_no) as detail, o.merchant_id
  from orders o
       left join (select distinct on (order_id) order_id, order_digest
                    from order_history order by order_id, id desc) as l on l.order_id = o.id
 where l.order_digest is distinct from sha256({content_of(orders, "o")})
 order by o.id
"""
# What an order says that it gave back is what its refunds gave back, less what corrections took back of it; of one that
# says nothing, a refund may have been posted before there was an order, but none taken back. An order of a kind that
# has no refund is refunded by the platform alone, and then by a correction of another type.
_REFUNDS: Final = f"""
with given_back as (
    select merchant_id, order_no, currency, sum(amount) as amount
      from (select merchant_id, order_no, currency, amount from entries
             where type in (324, 333) and order_no is not null
            union all
            select merchant_id, order_no, currency, amount from archived_refunds
            union all
            select merchant_id, order_no, currency, amount from correction_entries where bucket = 'refund') as part
     group by 1, 2, 3
)
select format('Order %s says that %s was given back; its entries say %s.', o.order_no, o.refunded,
              coalesce(g.amount, 0)) as detail, o.merchant_id
  from orders o
       left join given_back g on g.merchant_id = o.merchant_id and g.order_no = o.order_no and g.currency = o.currency
 where o.kind in ({", ".join(f"'{kind}'" for kind in sorted(REFUNDABLE))})
   and o.refunded <> coalesce(g.amount, 0) and (o.refunded > 0 or g.amount < 0)
 order by o.id
"""
_TRANSFERS: Final = f"""
select format('Transfer %s of %s is not what was decided.', t.transfer_id, t.card_id) as detail, t.merchant_id
  from card_transfers t where t.digest is distinct from sha256({content_of(card_transfers, "t")})
 order by t.transfer_id
"""
_CORRECTION_ENTRIES: Final = f"""
select format('Correction %s: version %s of account %s is not what it posted.', c.correction_id, c.version,
              c.account_id) as detail, c.merchant_id
  from correction_entries c where c.digest is distinct from sha256({content_of(correction_entries, "c")})
 order by c.correction_id, c.version
"""
# A correction that stands, or stood, posted what its content says.
_POSTED: Final = """
select format('Correction %s: what it posted for %s (%s, type %s) is not what it says.', correction_id, bucket, day,
              type) as detail, null as merchant_id
  from (select c.id as correction_id, e ->> 'bucket' as bucket, (e ->> 'day')::date as day,
               (e ->> 'type')::smallint as type, (e ->> 'amount')::numeric as amount, 1 as entries
          from corrections c cross join lateral jsonb_array_elements(c.content -> 'entries') as e
         where c.status in ('applied', 'reversed') and e ->> 'bucket' is not null
        union all
        select correction_id, bucket, day, type, -amount, -1 from correction_entries) as part
 group by 1, correction_id, bucket, day, type having sum(amount) <> 0 or sum(entries) <> 0
 order by 1
"""
# Who proposed a correction, who decided on it, and whether it was reversed, is what the history of its mismatch says.
_DECIDED: Final = """
select format('Correction %s is not what its mismatch''s history says of it.', c.id) as detail, m.merchant_id
  from corrections c left join mismatches m on m.id = c.mismatch_id
 where not exists (select from mismatch_history h
                    where h.correction_id = c.id and h.mismatch_id = c.mismatch_id
                      and h.act in ('propose', 'apply', 'reverse') and h.actor_id = c.proposed_by
                      and h.actor_name = c.proposed_by_name and h.reason is not distinct from c.reason)
    or (c.decided_by is not null
        and not exists (select from mismatch_history h
                         where h.correction_id = c.id and h.act in ('approve', 'reject')
                           and h.actor_id = c.decided_by and h.actor_name = c.decided_by_name
                           and h.reason is not distinct from c.decided_reason))
    or c.status not in ('proposed', 'rejected', 'void', 'applied', 'reversed')
    or (c.decided_by is null and num_nonnulls(c.decided_by_name, c.decided_reason) > 0)
    or (c.decided_by is null
        and exists (select from mismatch_history h
                     where h.correction_id = c.id and h.act in ('approve', 'reject')))
    or (c.status in ('applied', 'reversed'))
       <> exists (select from mismatch_history h where h.correction_id = c.id and h.act in ('apply', 'reverse'))
    or (c.status = 'rejected')
       <> exists (select from mismatch_history h where h.correction_id = c.id and h.act = 'reject')
    or (c.status = 'reversed')
       <> exists (select from corrections r where r.reversal_of = c.id and r.status = 'applied')
union all
select format('Correction %s, of which the history of mismatch %s tells, is gone.', h.correction_id, h.mismatch_id),
       null
  from mismatch_history h
 where h.correction_id is not null and not exists (select from corrections c where c.id = h.correction_id)
 order by 1
"""
# Only a correction has a record of a platform count for nothing, or speaks in one's place; until the platform says
# something else of it.
_RECORDS: Final = """
select format('Record %s of %s counts for nothing, by no correction.', r.upstream_ref, r.channel) as detail,
       null as merchant_id
  from upstream_records r
 where r.voided_by is not null
   and not exists (select from corrections c
                    where c.id = r.voided_by and c.status in ('applied', 'reversed')
                      and (r.upstream_ref = 'correction:' || (c.content ->> 'reverses')
                           or (r.upstream_ref = 'correction:' || c.id and r.counted_again_at is not null)
                           or c.content -> 'records' @> jsonb_build_array(
                               jsonb_build_object('id', r.id, 'after', jsonb_build_object('is_void', true)))))
union all
select format('Record %s of %s is by no correction.', r.upstream_ref, r.channel), null
  from upstream_records r
 where r.source = 'correction'
   and not exists (select from corrections c join mismatches m on m.id = c.mismatch_id and m.channel = r.channel
                    where r.upstream_ref = 'correction:' || c.id and c.status in ('applied', 'reversed')
                      and c.content -> 'new_record' @> jsonb_build_object('order_no', r.order_no, 'amount', r.amount,
                          'fee', r.fee, 'currency', r.currency, 'status', r.status)
                      and (c.content -> 'new_record' ->> 'occurred_at')::timestamptz = r.occurred_at)
union all
select format('Record correction:%s, by which a correction says what we say, is gone.', c.id), null
  from corrections c
 where c.status in ('applied', 'reversed') and jsonb_typeof(c.content -> 'new_record') = 'object'
   and not exists (select from upstream_records r
                    where r.upstream_ref = 'correction:' || c.id and r.source = 'correction')
union all
select format('Correction %s: record %s counts again, though it stands.', c.id, x ->> 'id'), null
  from corrections c
       cross join lateral jsonb_array_elements(c.content -> 'records') as x
 where c.status = 'applied' and c.reversal_of is null and (x -> 'after' ->> 'is_void')::boolean
   and not exists (select from upstream_records r
                    where r.id = (x ->> 'id')::bigint and coalesce(r.voided_by, r.counted_again_at::text) is not null)
 order by 1
"""
# `_contents` reads the parts' bytes, and `queries.archives.verify_archive` the entries in them.
_ARCHIVES: Final = f"""
select format('Archive %s: %s', a.id, f.detail) as detail, null as merchant_id
  from archives a
       join lateral (
           select count(*) as parts, coalesce(sum(entries), 0) as entries,
                  coalesce(sum(length(content)), 0) as size_bytes,
                  coalesce(string_agg(sha256, ''::bytea order by part), '') as digests
             from archive_parts where archive_id = a.id
       ) as p on true
       join lateral (
           select coalesce(sum(entries), 0) as entries,
                  min(date_trunc('month', quarter, 'UTC')) as first, max(date_trunc('month', quarter, 'UTC')) as last
             from archive_totals where archive_id = a.id
       ) as t on true
       left join archives b on b.number = a.number - 1
       join lateral (values
           (a.digest <> sha256(coalesce(a.previous_digest, '') || p.digests), 'Its digest is not that of its parts.'),
           (a.previous_digest is distinct from b.digest, 'It does not follow the archive before it.'),
           ((p.parts, p.entries, p.size_bytes) <> (a.parts, a.entries, a.size_bytes), 'Parts of it are missing.'),
           (a.entries <> t.entries, 'Its totals are not those of its entries.'),
           ((t.first, t.last) is distinct from (a.month::timestamp at time zone 'UTC',
                                                a.month::timestamp at time zone 'UTC'), 'Its month is another.'),
           (a.row_digest is distinct from {sealed("a")}, 'It is not what was written when it was made.')
       ) as f(is_fault, detail) on f.is_fault
 order by a.number
"""
_WITHOUT_ARCHIVE: Final = """
select format('Archive %s is gone; what belongs to it is there.', archive_id) as detail, null as merchant_id
  from (select archive_id from archive_parts union select archive_id from archive_totals) as part
 where not exists (select from archives a where a.id = part.archive_id)
 order by archive_id
"""
# What refunds that left gave back, by order, is what the archives' totals have of them.
_ARCHIVED_REFUNDS: Final = """
select format('The refunds of %s in %s that left are off by %s.', merchant_id, currency, sum(amount)) as detail,
       merchant_id
  from (select merchant_id, currency, amount::numeric from archived_refunds
        union all
        select merchant_id, currency, -(increase + decrease) from archive_totals where type in (324, 333)) as part
 group by merchant_id, currency having sum(amount) <> 0
 order by merchant_id, currency
"""
_STATEMENTS: Final[dict[str, Sequence[str]]] = {
    "order": (_ACTS, _ORDERS, _REFUNDS),
    "card_transfers": (_TRANSFERS,),
    "correction": (_CORRECTION_ENTRIES, _POSTED, _DECIDED, _RECORDS),
    "archive": (_ARCHIVES, _WITHOUT_ARCHIVE, _ARCHIVED_REFUNDS),
}


def _proposals(session: Session) -> Iterator[Finding]:
    """Yield the corrections whose content is not what was proposed."""
    rows = session.execute(sa.select(corrections).order_by(corrections.c.id).execution_options(yield_per=ROWS_AT_ONCE))
    for n, row in enumerate(rows):
        content = row.content if isinstance(row.content, dict) else {}
        said = (content.get("to"), content.get("reason"), content.get("reverses"))
        if digest_of(content) != row.content_sha256 or said != (row.direction, row.reason, row.reversal_of):
            yield Finding("correction", f"Correction {row.id} does not say what was proposed.")
        if n % ROWS_AT_ONCE == 0:
            time.sleep(0)


def _contents(session: Session) -> Iterator[Finding]:
    """Yield the parts of archives whose bytes are not what was archived."""
    c = archive_parts.c
    query = sa.select(archives.c.id, c.part, c.sha256, c.content).join(archives, archives.c.id == c.archive_id)
    query = query.order_by(archives.c.number, c.part).execution_options(yield_per=1)
    for row in session.execute(query):
        if not _is_intact(row):
            yield Finding("archive", f"Archive {row.id}: part {row.part} is not what was archived.")
        time.sleep(0)


def _is_intact(part: Any) -> bool:
    try:
        return sha256(gzip.decompress(part.content)).digest() == bytes(part.sha256)
    except (OSError, EOFError, zlib.error):
        return False
