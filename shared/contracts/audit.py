"""What others may know of the audit service: views of log rows, of the chain, and errors. It emits no events."""

from collections.abc import Callable
from typing import Any, Final, Literal, NotRequired, TypedDict

from shared.errors import InvalidRequest, NotFound

LogType = Literal["operation", "api_call", "system_error", "data_change"]
LOG_TYPES: Final[tuple[LogType, ...]] = ("operation", "api_call", "system_error", "data_change")

Outcome = Literal["success", "denied", "refused", "failed"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("success", "denied", "refused", "failed")

StatsBy = Literal["action", "user", "outcome", "hour"]
STATS_BY: Final[tuple[StatsBy, ...]] = ("action", "user", "outcome", "hour")

CHAIN_BREAKS_MAX: Final = 100  # in one report; who finds so many looks at the table

BreakKind = Literal["changed", "removed", "inserted", "cut_off"]


class LogNotFound(NotFound):
    """There is no such log row that you may see."""


class LogQueryTooBroad(InvalidRequest):
    """This search would take too long: narrow its time range or add a filter."""


class LogView(TypedDict):
    """One log row. `actor` is an id; `changes` is {field: {"before": …, "after": …}}."""

    id: str
    log_type: LogType
    time: str
    actor: str | None
    actor_name: str | None
    actor_type: str | None
    action: str
    resource_type: str | None
    resource_id: str | None
    order_no: str | None
    merchant_id: str | None
    service: str
    event: str
    ip: str | None
    user_agent: str | None
    request_id: str | None
    outcome: Outcome
    status: int | None
    duration_ms: int | None
    message: str
    reason: str | None
    changes: dict[str, Any] | None


class UsedPermission(TypedDict):
    """How often somebody used a permission, written as `cards:operate`, and when last."""

    permission: str
    uses: int
    last_used_at: str


class ChainPlace(TypedDict):
    """Where a row stands in the chain; `is_intact` says that its hash and its link to the row before hold."""

    seq: int
    prev_hash: str
    hash: str
    is_intact: bool


class LogDetailView(LogView):
    """One log row, whole: with all that its event said, and its place in the chain."""

    details: dict[str, Any] | None
    chain: ChainPlace


class LogPage(TypedDict):
    """One page of log rows, newest first, and the time window that was searched."""

    items: list[LogView]
    next_cursor: str | None
    from_time: str | None
    to_time: str | None


class ChainBreak(TypedDict):
    """Where the chain does not hold. `id` and `time` are those of the row, where there is one."""

    kind: BreakKind
    seq: int
    seq_last: int
    detail: str
    id: NotRequired[str]
    time: NotRequired[str]


class ChainReport(TypedDict):
    """What a check of the chain found. `next_seq` is where to go on; None when the range is done."""

    ok: bool
    checked: int
    first_broken: ChainBreak | None
    broken: list[ChainBreak]
    next_seq: int | None


def verify_in_calls(verify: Callable[..., Any], *, calls_max: int | None = None, **span: Any) -> ChainReport:
    """Check a range of the chain by as many calls of `verify_chain` as it takes, and return one report of them all.

    verify: calls `verify_chain` with the arguments it is given.
    calls_max: after so many the report ends, and its `next_seq` says where to go on.
    """
    whole: ChainReport = verify(**span)
    calls = 1
    while whole["next_seq"] is not None and (calls_max is None or calls < calls_max):
        further: ChainReport = verify(**span | {"from_seq": whole["next_seq"]})
        calls += 1
        whole = {
            "ok": whole["ok"] and further["ok"],
            "checked": whole["checked"] + further["checked"],
            "first_broken": whole["first_broken"] or further["first_broken"],
            "broken": (whole["broken"] + further["broken"])[:CHAIN_BREAKS_MAX],
            "next_seq": further["next_seq"],
        }
    return whole


class LogCount(TypedDict):
    """How many rows there are of one key: an action, a user, an outcome, or the first instant of an hour."""

    key: str
    count: int


class LogStats(TypedDict):
    """Counts of log rows for plots."""

    by: StatsBy
    from_time: str
    to_time: str
    items: list[LogCount]
