"""Reads of the audit log: pages, one row, counts. Each is cut to what the caller may see.

Data permission: a row of a merchant is for whoever sees that merchant; a row of none is for whoever sees all
merchants, and for the one who did it (docs/logs.md).
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.audit.domain.chain import GENESIS, hash_of, parse_log_id
from services.audit.models import SELECTED, link_of, log_view
from shared.contracts.audit import (
    LogDetailView,
    LogNotFound,
    LogPage,
    LogQueryTooBroad,
    LogStats,
    StatsBy,
    UsedPermission,
)
from shared.contracts.ledger import ADMIN_TYPES, BalancesChanged
from shared.errors import InvalidRequest
from shared.paging import InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.searching import bounded_search
from shared.times import parse_rfc3339, rfc3339, utc_now

WINDOW_DEFAULT: Final = timedelta(days=7)
GROUPS_MAX: Final = 1_000

# What ids and order numbers are made of: no space, and something that words do not have.
_IDENTIFIER: Final = re.compile(r"(?=[^ ]*[0-9_.:-])[A-Za-z0-9][A-Za-z0-9_.:/#-]{4,127}", re.ASCII)
_IDENTIFIED_BY: Final = ("order_no", "resource_id", "request_id")
_GROUP_KEYS: Final[dict[StatsBy, str]] = {
    "action": "l.action",
    "user": "coalesce(l.actor_name, l.actor_id, '')",
    "outcome": "l.outcome",
    "hour": "to_char(date_trunc('hour', l.time at time zone 'UTC'), 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
}


@dataclass
class Search:
    """The conditions of a search, in SQL with bound values."""

    conditions: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, condition: str, **values: Any) -> None:
        """Narrow the search."""
        self.conditions.append(condition)
        self.values |= values

    def sql(self) -> str:
        """Return the conditions as one."""
        return " and ".join(self.conditions) or "true"


_USED_PERMISSIONS: Final = text(
    """
    select actor_id, permission, count(*) as uses, max(time) as last_used_at
      from (select actor_id, time,
                   case when log_type = 'api_call' then details->>'permission' else :ledger_admin end as permission
              from log_rows
             where actor_id = any(:actor_ids) and time >= :from_time
               and (log_type = 'api_call' and outcome <> 'denied'
                    or event = :balances_changed and details->>'type' = any(:admin_types))) as used
     where permission is not null
     group by actor_id, permission
     order by actor_id, permission
    """
).bindparams(ledger_admin="ledger:admin", balances_changed=BalancesChanged.__name__)


def list_logs(
    session: Session,
    passport: Passport,
    *,
    limit: int,
    cursor: str | None = None,
    log_type: str | None = None,
    from_time: str | None = None,
    to_time: str | None = None,
    user: str | None = None,
    action: str | None = None,
    q: str | None = None,
    resource_type: str | None = None,
    resource_id: str | None = None,
    request_id: str | None = None,
    outcome: str | None = None,
    of_service: str | None = None,
    merchant_id: str | None = None,
) -> LogPage:
    """Return a page of log rows, newest first.

    from_time: without it, the last `WINDOW_DEFAULT` before to_time; unless request_id, resource_id, or a keyword
    that is a known identifier leads to few rows by itself.
    user: an actor's id or name. action: exact, or `cards.*` for all that begin so.
    q: a keyword, anywhere in the action, the actor's name, the message and the reason; or, whole, the number of an
    order, the id of a resource or of a request.
    merchant_id: one that the caller does not see finds nothing.
    Raises: InvalidCursor, LogQueryTooBroad.
    """
    search = Search()
    with bounded_search(session, LogQueryTooBroad):
        is_identifier = q is not None and _is_known_identifier(session, q)
        is_pointed = bool(request_id or resource_id or is_identifier)
        lower, upper = _window(from_time, to_time, is_open=is_pointed)
        _add_times(search, lower, upper)
        _add_exact(
            search,
            log_type=log_type,
            resource_type=resource_type,
            resource_id=resource_id,
            request_id=request_id,
            outcome=outcome,
            service=of_service,
        )
        _add_user(session, search, user)
        _add_action(search, action)
        _add_keyword(search, q, is_identifier=is_identifier)
        _add_cursor(search, cursor)
        is_narrow = is_pointed or bool(user or q)
        statement = _page_statement(search, passport, merchant_id, limit, is_narrow=is_narrow)
        rows = session.execute(text(statement), search.values).mappings().all() if statement else []
    links = [link_of(row) for row in rows[:limit]]
    return {
        "items": [log_view(link.content) for link in links],
        "next_cursor": encode_cursor([links[-1].content["time"], links[-1].content["seq"]])
        if len(rows) > limit
        else None,
        "from_time": None if lower is None else rfc3339(lower),
        "to_time": None if upper is None else rfc3339(upper),
    }


def _is_known_identifier(session: Session, keyword: str) -> bool:
    """Return whether the keyword looks like an identifier and is one: its index finds the rows then, not trigrams."""
    if _IDENTIFIER.fullmatch(keyword) is None:
        return False
    known = " or ".join(f"exists(select 1 from log_rows where {column} = :q)" for column in _IDENTIFIED_BY)
    return bool(session.scalar(text(f"select {known}"), {"q": keyword}))


def _window(
    from_time: str | None, to_time: str | None, *, is_open: bool = False
) -> tuple[datetime | None, datetime | None]:
    upper = None if to_time is None else instant_of("to", to_time)
    if from_time is not None:
        return instant_of("from", from_time), upper
    return (None if is_open else (upper or utc_now()) - WINDOW_DEFAULT), upper


def instant_of(field_name: str, value: str) -> datetime:
    """Return the instant that a filter names. Raises: InvalidRequest."""
    try:
        return parse_rfc3339(value)
    except ValueError:
        raise InvalidRequest.of_field(field_name, "Must be a time of RFC 3339 with its offset.") from None


def _add_times(search: Search, lower: datetime | None, upper: datetime | None) -> None:
    if lower is not None:
        search.add("l.time >= :from_time", from_time=lower)
    if upper is not None:
        search.add("l.time < :to_time", to_time=upper)


def _add_exact(search: Search, **wanted: str | None) -> None:
    for column, value in wanted.items():
        if value is not None:
            search.add(f"l.{column} = :{column}", **{column: value})


def _add_user(session: Session, search: Search, user: str | None) -> None:
    if user is None:
        return
    # One of both columns and not either of them, so that one index gives the rows in their order.
    is_id = session.scalar(text("select exists(select 1 from log_rows where actor_id = :user)"), {"user": user})
    search.add(f"l.{'actor_id' if is_id else 'actor_name'} = :user", user=user)


def _add_action(search: Search, action: str | None) -> None:
    if action is None:
        return
    if action.endswith(".*"):
        # A range, not a pattern, so that the index serves it: "/" is the character after ".".
        prefix = action.removesuffix("*")
        search.add("l.action >= :action and l.action < :action_end", action=prefix, action_end=f"{prefix[:-1]}/")
    else:
        search.add("l.action = :action", action=action)


def _add_keyword(search: Search, keyword: str | None, *, is_identifier: bool) -> None:
    if not keyword:
        return
    if is_identifier:
        search.add(f"({' or '.join(f'l.{column} = :keyword' for column in _IDENTIFIED_BY)})", keyword=keyword)
    else:
        escaped = re.sub(r"([\\%_])", r"\\\1", keyword)
        search.add("l.search_text ilike :keyword", keyword=f"%{escaped}%")


def _add_cursor(search: Search, cursor: str | None) -> None:
    if cursor is None:
        return
    time, seq = decode_cursor(cursor, length=2)
    if not isinstance(time, str) or not isinstance(seq, int):
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    search.add("(l.time, l.seq) < (:last_time, :last_seq)", last_time=instant_of("cursor", time), last_seq=seq)


def _page_statement(
    search: Search, passport: Passport, merchant_id: str | None, limit: int, *, is_narrow: bool
) -> str | None:
    """Return the SQL of a page within what the caller sees; None where that is nothing.

    is_narrow: whether the search itself leads to few rows, of which those in scope are then picked. Else somebody who
    sees some merchants gets the newest rows of each by that merchant's index, and their own rows of no merchant,
    merged: one scan for all of them would read through everybody else's rows.
    """
    search.values["limit_and_one"] = limit + 1
    newest = "order by time desc, seq desc limit :limit_and_one"
    if merchant_id is not None:
        if not passport.sees(merchant_id):
            return None
        search.add("l.merchant_id = :merchant_id", merchant_id=merchant_id)
    elif is_narrow:
        _add_scope(search, passport)
    merchants = passport.merchant_filter()
    if merchants is None or merchant_id is not None or is_narrow:
        return f"select {SELECTED} from log_rows l where {search.sql()} {newest}"
    search.values |= {"merchants": merchants, "self_id": passport.actor_id}
    return (
        f"select seen.* from unnest(cast(:merchants as text[])) as scope (merchant_id) cross join lateral"
        f" (select {SELECTED} from log_rows l where l.merchant_id = scope.merchant_id and {search.sql()} {newest}) seen"
        f" union all"
        f" (select {SELECTED} from log_rows l"
        f" where l.merchant_id is null and l.actor_id = :self_id and {search.sql()} {newest})"
        f" {newest}"
    )


def _add_scope(search: Search, passport: Passport) -> None:
    """Cut a search to the caller's merchants, and to what they did themselves of that which is no merchant's."""
    merchants = passport.merchant_filter()
    if merchants is not None:
        search.add(
            "(l.merchant_id = any(cast(:merchants as text[])) or (l.merchant_id is null and l.actor_id = :self_id))",
            merchants=merchants,
            self_id=passport.actor_id,
        )


_ONE_ROW: Final = (
    f"select {SELECTED}, (select p.hash from log_rows p where p.seq = l.seq - 1 limit 1) as hash_before"
    " from log_rows l where l.event_id = :event_id and l.part = :part"
)


def get_log(session: Session, passport: Passport, *, log_id: str) -> LogDetailView:
    """Return one row, whole, with its place in the chain. Raises: LogNotFound, out of scope too."""
    event_id, part = parse_log_id(log_id) or ("", 0)
    found = session.execute(text(_ONE_ROW), {"event_id": event_id, "part": part}).mappings().first()
    if found is None:
        raise LogNotFound
    link = link_of(found)
    content = link.content
    if not _may_see(passport, content["merchant_id"], content["actor_id"]):
        raise LogNotFound
    hash_before = GENESIS if content["seq"] == 1 else bytes(found["hash_before"] or b"")
    return {
        **log_view(content),
        "details": content["details"],
        "chain": {
            "seq": content["seq"],
            "prev_hash": link.prev_hash.hex(),
            "hash": link.hash.hex(),
            "is_intact": link.prev_hash == hash_before and hash_of(link.prev_hash, content) == link.hash,
        },
    }


def _may_see(passport: Passport, merchant_id: str | None, actor_id: str | None) -> bool:
    return passport.sees(merchant_id) or (merchant_id is None and actor_id == passport.actor_id)


def log_stats(
    session: Session, passport: Passport, *, by: StatsBy, from_time: str | None = None, to_time: str | None = None
) -> LogStats:
    """Count the rows of a time range by action, user, outcome or hour: the largest groups, hours in their order.

    from_time: without it, the last `WINDOW_DEFAULT` before to_time.
    Raises: LogQueryTooBroad.
    """
    lower, upper = _window(from_time, to_time)
    upper = upper or utc_now()
    search = Search()
    _add_times(search, lower, upper)
    _add_scope(search, passport)
    order = "key" if by == "hour" else "count desc, key"
    with bounded_search(session, LogQueryTooBroad):
        rows = session.execute(
            text(
                f"select {_GROUP_KEYS[by]} as key, count(*) as count from log_rows l where {search.sql()}"
                f" group by 1 order by {order} limit {GROUPS_MAX}"
            ),
            search.values,
        ).all()
    return {
        "by": by,
        "from_time": rfc3339(lower) if lower else "",
        "to_time": rfc3339(upper),
        "items": [{"key": key, "count": count} for key, count in rows],
    }


def summarize_actions_of_actors(
    session: Session, *, actor_ids: list[str], from_time: str
) -> dict[str, list[UsedPermission]]:
    """Return which permissions each of these actors has used since an instant, how often and when last.

    A call counts that its route let in, whatever came of it. The ledger asks more of an adjustment than its route does.
    Raises: LogQueryTooBroad.
    """
    with bounded_search(session, LogQueryTooBroad):
        rows = session.execute(
            _USED_PERMISSIONS,
            {
                "actor_ids": actor_ids,
                "from_time": instant_of("from_time", from_time),
                "admin_types": list(map(str, ADMIN_TYPES)),
            },
        ).all()
    used: dict[str, list[UsedPermission]] = {actor_id: [] for actor_id in actor_ids}
    for row in rows:
        use: UsedPermission = {
            "permission": row.permission,
            "uses": row.uses,
            "last_used_at": rfc3339(row.last_used_at),
        }
        used[row.actor_id].append(use)
    return used
