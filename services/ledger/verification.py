"""The proof of the ledger: every account from its first entry to its last, every sum, and the trial balance.

All of it is read in one snapshot, so that posting goes on meanwhile and never looks like a fault. What is neither an
account nor an entry is proved by `row_proofs`.
"""

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.entries import entry_id
from services.ledger.row_proofs import Finding, findings
from services.ledger.seals import broken_seals
from shared import outbox
from shared.contracts.ledger import LedgerFault, LedgerVerified, VerificationView
from shared.errors import Conflict
from shared.times import rfc3339, utc_now

FAULTS_SHOWN_MAX: Final = 100
FAULTS_TOLD_MAX: Final = 10
STATEMENT_SECONDS_MAX: Final = 1800

FULL_SECONDS_OFTEN: Final = 30  # a whole proof that takes no longer is done each time
FULL_HOURS_MAX: Final = 24  # and one that does is done as often as this

Mode = Literal["full", "incremental"]
WantedMode = Literal["full", "incremental", "due"]


class VerificationRunning(Conflict):
    """The ledger is being proved right now."""


# What `domain.entries.enter` hashes, in SQL.
CONTENT = """
        sha256(convert_to(concat_ws(E'\\x1f', e.account_id, e.version, e.amount, e.balance_before, e.balance_after,
            e.type, coalesce(e.counter_account, ''), e.merchant_id, e.holder_type, e.holder_id, e.currency,
            coalesce(e.order_no, ''), coalesce(e.channel, ''), coalesce(e.note, ''), coalesce(e.reason, ''),
            e.actor_id, e.actor_name, e.actor_type, e.request_id,
            (extract(epoch from e.created_at) * 1000000)::bigint), 'UTF8'))
"""

_HOLDER = "concat_ws(E'\\x1f', a.merchant_id, a.holder_type, a.holder_id, a.currency)"

# The accounts to prove, each with the place that its proof goes on from: all of it from where its archived entries end.
_SUBJECTS = {
    "full": f"""
        select a.*, {_HOLDER} as holder, coalesce(o.version, 0) as from_version, coalesce(o.balance, 0) as from_balance,
               coalesce(o.digest, '') as from_digest, o.holder as from_holder
          from accounts a left join archived_openings o on o.account_id = a.id
    """,
    "incremental": f"""
        select a.*, {_HOLDER} as holder, coalesce(p.version, 0) as from_version, coalesce(p.balance, 0) as from_balance,
               coalesce(p.digest, '') as from_digest, p.holder as from_holder
          from accounts a
               left join verified_accounts v on v.account_id = a.id
               left join lateral (
                   select version, balance, digest, holder from verified_accounts where account_id = a.id
                   union all
                   select version, balance, digest, holder from archived_openings where account_id = a.id
                    order by version desc limit 1
               ) as p on true
         where v.account_id is null or a.wallet <> 'balance'
            or (a.version, a.balance, a.digest, {_HOLDER}) is distinct from (v.version, v.balance, v.digest, v.holder)
    """,
}

# Proving all, the entries are read from end to end; proving what is new, account by account through their key.
_ENTRIES_OF_SUBJECT = {
    "full": "join entries e on e.account_id = s.id",
    "incremental": """cross join lateral (
        select * from entries x where x.account_id = s.id and x.version > s.from_version offset 0
    ) as e""",
}

# One statement, since the app role may make no temporary table. Each row is a finding: `kind` and what belongs to it.
_PROOF = """
with subject as materialized ({subjects}), hashed as (
    select e.account_id, e.version, e.amount, e.balance_before, e.balance_after, e.digest, {content} as content,
           (e.merchant_id, e.holder_type, e.holder_id, e.currency)
               = (s.merchant_id, s.holder_type, s.holder_id, s.currency) as is_of_account,
           coalesce('' = any(array[e.counter_account, e.order_no, e.channel, e.note, e.reason]), false) as has_empty,
           s.merchant_id, s.from_version, s.from_balance, s.from_digest
      from subject s {entries_of_subject}
), linked as (
    select *, coalesce(lag(version) over chain, from_version) as previous_version,
           coalesce(lag(balance_after) over chain, from_balance) as previous_balance,
           coalesce(lag(digest) over chain, from_digest) as previous_digest,
           lead(version) over chain is null as is_last
      from hashed
    window chain as (partition by account_id order by version)
), judged as materialized (
    select account_id, merchant_id, version, balance_before, balance_after, digest, previous_version,
           previous_balance, is_last,
           version > previous_version + 1 as is_gap,
           version = previous_version as is_double,
           version = previous_version + 1 and balance_before <> previous_balance as is_broken,
           balance_after <> balance_before + amount as is_wrong_sum,
           has_empty or (version = previous_version + 1 and digest <> sha256(previous_digest || content)) as is_changed,
           not is_of_account as is_misplaced
      from linked
), bad as materialized (
    select * from judged where is_gap or is_double or is_broken or is_wrong_sum or is_changed or is_misplaced
), proved as materialized (
    select s.id as account_id, s.merchant_id, s.balance, s.version, s.digest, s.holder, s.from_holder, s.wallet,
           coalesce(j.balance_after, s.from_balance) as last_balance,
           coalesce(j.version, s.from_version) as last_version,
           coalesce(j.digest, s.from_digest) as last_digest
      from subject s left join (select * from judged where is_last) j on j.account_id = s.id
), bad_account as materialized (
    select * from proved
     where (balance, version, digest) <> (last_balance, last_version, last_digest) or version = 0
        or holder <> from_holder or wallet <> 'balance'
), remembering as (
    insert into verified_accounts as v (account_id, version, balance, digest, holder)
    select account_id, version, balance, digest, holder from proved
     where account_id not in (select account_id from bad union all select account_id from bad_account)
     order by account_id
        on conflict on constraint pk_verified_accounts do update
           set version = excluded.version, balance = excluded.balance, digest = excluded.digest,
               holder = excluded.holder, verified_at = excluded.verified_at
         where (v.version, v.balance, v.digest, v.holder)
               is distinct from (excluded.version, excluded.balance, excluded.digest, excluded.holder)
)
select 'count' as kind, jsonb_build_object(
           'entries', (select count(*) from judged), 'accounts', (select count(*) from subject)) as found
union all
select 'entry', to_jsonb(bad) - 'digest' from bad
union all
select 'account', to_jsonb(bad_account) - 'digest' - 'last_digest' from bad_account
"""

_ORPHANS = """
select account_id, min(merchant_id) as merchant_id, count(*) as entries from entries e
 where not exists (select from accounts a where a.id = e.account_id) group by account_id order by account_id
"""

# No account ever goes: one that was proved, or whose entries left, is there.
_GONE = """
select account_id, null as merchant_id
  from (select account_id from verified_accounts union select account_id from archived_openings) as known
 where not exists (select from accounts a where a.id = known.account_id) order by account_id
"""

_SYSTEM_ACCOUNTS = """
select merchant_id, counter_account, currency, balance from system_account_totals
union all
select merchant_id, counter_account, currency, -(increase + decrease) from posting_deltas
 where counter_account is not null
"""

_TRIAL_FAULTS = f"""
select currency, merchant_id, sum(balance) as difference
  from (select currency, merchant_id, balance::numeric from accounts
        union all select currency, merchant_id, balance from ({_SYSTEM_ACCOUNTS}) as system) as leg
 group by currency, merchant_id having sum(balance) <> 0 order by currency, merchant_id
"""

_HELD_FAULTS = """
select account_id, min(merchant_id) as merchant_id, sum(held) as held, sum(of_orders) as of_orders
  from (select id as account_id, merchant_id, held, 0 as of_orders from accounts where held <> 0
        union all
        select account_id, merchant_id, 0, held from orders where held > 0) as leg
 group by account_id having sum(held) <> sum(of_orders) order by account_id
"""

# Nothing but transfers moves a card's money, and each that was posted does so once.
_CARD_FAULTS = """
select merchant_id, card_id, currency, sum(balance) as difference, sum(entries) as entries
  from (select merchant_id, holder_id as card_id, currency, balance::numeric, version as entries
          from accounts where holder_type = 'card'
        union all
        select merchant_id, card_id, currency,
               -sum(case direction when 'top_up' then amount else -amount end), -count(*)
          from card_transfers where refusal is null group by 1, 2, 3) as leg
 group by 1, 2, 3 having sum(balance) <> 0 or sum(entries) <> 0 order by 1, 2, 3
"""

_SYSTEM_FAULTS = f"""
select merchant_id, counter_account, currency, sum(balance) as difference
  from ({_SYSTEM_ACCOUNTS}
        union all
        select merchant_id, counter_account, currency, sum(amount) from entries
         where counter_account is not null group by 1, 2, 3
        union all
        select merchant_id, counter_account, currency, increase + decrease from archive_totals
         where counter_account is not null) as leg
 group by 1, 2, 3 having sum(balance) <> 0 order by 1, 2, 3
"""

_HOUR_FAULTS = """
select hour, merchant_id, currency, type, channel
  from (select hour, merchant_id, currency, type, channel, entries, increase, decrease from hourly_totals
        union all
        select hour, merchant_id, currency, type, coalesce(channel, ''), entries, increase, decrease
          from posting_deltas
        union all
        select date_trunc('hour', created_at, 'UTC'), merchant_id, currency, type, coalesce(channel, ''), -count(*),
               -coalesce(sum(amount) filter (where amount > 0), 0), -coalesce(sum(amount) filter (where amount < 0), 0)
          from entries group by 1, 2, 3, 4, 5
        union all
        select date_trunc('hour', quarter, 'UTC'), merchant_id, currency, type, coalesce(channel, ''), -entries,
               -increase, -decrease
          from archive_totals) as leg
 group by 1, 2, 3, 4, 5 having sum(entries) <> 0 or sum(increase) <> 0 or sum(decrease) <> 0 order by 1, 2, 3, 4, 5
"""

_REMEMBER = sa.text(
    """
    insert into proofs (mode, ok, seconds) values (:mode, :ok, :seconds)
        on conflict on constraint pk_proofs do update
           set ok = excluded.ok, seconds = excluded.seconds, finished_at = excluded.finished_at
    """
)
_NEEDS_FULL = sa.text(
    """
    select not exists (
        select from proofs
         where mode = 'full' and seconds > :seconds
           and finished_at between now() - make_interval(hours => :hours) and clock_timestamp())
    """
)


def verify_ledger(session: Session, *, mode: WantedMode) -> VerificationView:
    """Prove the ledger, and remember how far.

    mode: `full` proves every entry and every sum; `incremental` the entries since the last proof of their account,
    the trial balance, and what is held; `due` proves all where that is quick or was long ago, else what is new.
    Raises: VerificationRunning.
    Emits: LedgerVerified; but for an incremental proof that found nothing, which is no news.
    """
    # This decides the snapshot, and so comes before anything else in the transaction. The lock comes before the first
    # look: a month that left between both would be neither in the log nor in what this snapshot has of the archives.
    session.execute(sa.text("set transaction isolation level repeatable read"))
    session.execute(sa.text("lock table entries in access share mode"))
    session.execute(sa.text(f"set local statement_timeout = '{STATEMENT_SECONDS_MAX}s'"))
    session.execute(sa.text("set local work_mem = '64MB'"))
    if not session.execute(sa.text("select pg_try_advisory_xact_lock(hashtext('verify_ledger'))")).scalar_one():
        raise VerificationRunning(retry_after_seconds=5)
    proved = _due_mode(session) if mode == "due" else mode
    began = time.monotonic()
    view = prove(session, mode=proved)
    session.execute(_REMEMBER, {"mode": proved, "ok": view["ok"], "seconds": time.monotonic() - began})
    if proved == "full" or not view["ok"]:
        outbox.add(session, _verified(view))
    return view


def _due_mode(session: Session) -> Mode:
    needs_full = session.execute(_NEEDS_FULL, {"seconds": FULL_SECONDS_OFTEN, "hours": FULL_HOURS_MAX}).scalar_one()
    return "full" if needs_full else "incremental"


def _verified(view: VerificationView) -> LedgerVerified:
    return LedgerVerified(
        ok=view["ok"],
        mode=view["mode"],
        accounts=view["accounts"],
        entries=view["entries"],
        fault_count=view["fault_count"],
        faults=view["faults"][:FAULTS_TOLD_MAX],
    )


def prove(session: Session, *, mode: Mode) -> VerificationView:
    """Prove the ledger as the session's transaction sees it; only one snapshot makes that a proof."""
    proof = _PROOF.format(subjects=_SUBJECTS[mode], entries_of_subject=_ENTRIES_OF_SUBJECT[mode], content=CONTENT)
    found = session.execute(sa.text(proof)).all()
    [count] = [row.found for row in found if row.kind == "count"]
    faults = [f for row in found if row.kind == "entry" for f in _entry_faults(SimpleNamespace(**row.found))]
    faults += [_account_fault(SimpleNamespace(**row.found)) for row in found if row.kind == "account"]
    faults += _sum_faults(session, is_full=mode == "full")
    return {
        "ok": not faults,
        "mode": mode,
        "accounts": count["accounts"],
        "entries": count["entries"],
        "faults": faults[:FAULTS_SHOWN_MAX],
        "fault_count": len(faults),
        "verified_at": rfc3339(utc_now()),
    }


def _sum_faults(session: Session, *, is_full: bool) -> list[LedgerFault]:
    def rows(statement: str) -> Sequence[Any]:
        return session.execute(sa.text(statement)).all()

    faults = [
        _fault("trial_balance", f"The {r.currency} accounts of {r.merchant_id} are off by {r.difference}.", r)
        for r in rows(_TRIAL_FAULTS)
    ]
    faults += [
        _fault("held", f"Account {r.account_id} holds {r.held}; its pending orders hold {r.of_orders}.", r)
        for r in rows(_HELD_FAULTS)
    ]
    faults += [_fault("orphan", f"Account {r.account_id} is gone.", r) for r in rows(_GONE)]
    if is_full:
        faults += [
            _fault("orphan", f"{r.entries} entries belong to account {r.account_id}, which is gone.", r)
            for r in rows(_ORPHANS)
        ]
        faults += [
            _fault("card_transfers", f"{r.card_id} is off by {r.difference}, {r.entries} entries, of its transfers.", r)
            for r in rows(_CARD_FAULTS)
        ]
        faults += [
            _fault("system_account", f"{r.counter_account} in {r.currency} is off by {r.difference}.", r)
            for r in rows(_SYSTEM_FAULTS)
        ]
        faults += [
            _fault("hourly_total", f"Type {r.type} in {r.currency} at {r.hour:%Y-%m-%d %H}:00 UTC is off.", r)
            for r in rows(_HOUR_FAULTS)
        ]
        faults += [_fault(found.kind, found.detail, found) for found in findings(session)]
        faults += [_fault("closed_day", detail, Finding("closed_day", detail)) for detail in broken_seals(session)]
    return faults


def _entry_faults(row: Any) -> list[LedgerFault]:
    """Return what is wrong with one entry, or between it and the one before."""
    found = []
    if row.is_gap:
        lacking = f"{row.previous_version + 1} to {row.version - 1}"
        found.append(_fault("gap", f"Before version {row.version}, versions {lacking} are missing.", row))
    if row.is_double:
        found.append(_fault("double", f"Version {row.version} stands twice.", row))
    if row.is_broken:
        detail = (
            f"It begins at {row.balance_before}, but version {row.previous_version} ended at {row.previous_balance}."
        )
        found.append(_fault("chain", detail, row))
    if row.is_wrong_sum:
        found.append(_fault("sum", "Its balance after is not its balance before and its amount.", row))
    if row.is_changed:
        found.append(_fault("changed", "Its content is not what was posted.", row))
    if row.is_misplaced:
        found.append(_fault("misplaced", "Its holder is not its account's.", row))
    return found


def _account_fault(row: Any) -> LedgerFault:
    """Return what is wrong between an account and its last entry."""
    if row.wallet != "balance" or row.from_holder not in (None, row.holder):
        detail = "The account is not its holder's any more."
    else:
        detail = (
            f"The account says version {row.version} and balance {row.balance}; its last entry is version "
            f"{row.last_version} with balance {row.last_balance}."
        )
    return {
        "kind": "account",
        "detail": detail,
        "account_id": row.account_id,
        "entry_id": None,
        "merchant_id": row.merchant_id,
    }


def _fault(kind: str, detail: str, row: Any) -> LedgerFault:
    account_id, version = getattr(row, "account_id", None), getattr(row, "version", None)
    return {
        "kind": kind,
        "detail": detail,
        "account_id": account_id,
        "entry_id": None if account_id is None or version is None else entry_id(account_id, version),
        "merchant_id": row.merchant_id,
    }
