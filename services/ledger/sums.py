"""What runs beside posting: folding its deltas into totals, and making the months' partitions ahead."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

FOLD_ROWS: Final = 20_000
PARTITION_MONTHS_AHEAD: Final = 2

# Readers add totals and deltas in one snapshot, so they see a delta in exactly one of the two.
_FOLD = sa.text(
    """
    with taken as (
        delete from posting_deltas
         where id in (select id from posting_deltas order by id limit :rows for update skip locked)
        returning *
    ), by_system_account as (
        insert into system_account_totals as t (merchant_id, counter_account, currency, balance)
        select merchant_id, counter_account, currency, -sum(increase + decrease)
          from taken
         where counter_account is not null
         group by 1, 2, 3
         order by 1, 2, 3
            on conflict on constraint pk_system_account_totals do update set balance = t.balance + excluded.balance
    ), by_hour as (
        insert into hourly_totals as t (hour, merchant_id, currency, type, channel, entries, increase, decrease)
        select hour, merchant_id, currency, type, coalesce(channel, ''), sum(entries), sum(increase), sum(decrease)
          from taken
         group by 1, 2, 3, 4, 5
         order by 1, 2, 3, 4, 5
            on conflict on constraint pk_hourly_totals do update
               set entries = t.entries + excluded.entries, increase = t.increase + excluded.increase,
                   decrease = t.decrease + excluded.decrease
    )
    select count(*) from taken
    """
)


def fold_deltas(session: Session) -> int:
    """Move the oldest deltas into the totals. Returns: how many, at most `FOLD_ROWS`."""
    return int(session.execute(_FOLD, {"rows": FOLD_ROWS}).scalar_one())


def create_partitions(session: Session) -> None:
    """Make the partitions of this month and the next, where they lack."""
    session.execute(sa.text("select create_entry_partitions(:months)"), {"months": PARTITION_MONTHS_AHEAD})
