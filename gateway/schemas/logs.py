"""Log rows and reports on their chain, as the API shows them."""

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema, TimeRangeQuery
from shared.contracts.audit import LOG_TYPES, OUTCOMES, STATS_BY

_FILTER_LENGTH_MAX = 200
_KEYWORD_LENGTH_MAX = 100
BREAK_KINDS = ("changed", "removed", "inserted", "cut_off")


class LogSchema(Schema):
    """What was done, called, broken or changed: by whom, to what, from where, with which outcome."""

    id = fields.Text(required=True)
    log_type = fields.Word(LOG_TYPES, required=True)
    time = fields.Timestamp(required=True)
    actor = fields.Text(required=True, allow_none=True, metadata={"description": "The id of who did it."})
    actor_name = fields.Text(required=True, allow_none=True)
    actor_type = fields.Text(required=True, allow_none=True)
    action = fields.Text(required=True)
    resource_type = fields.Text(required=True, allow_none=True)
    resource_id = fields.Text(required=True, allow_none=True)
    order_no = fields.Text(required=True, allow_none=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    service = fields.Text(required=True)
    event = fields.Text(required=True)
    ip = fields.Text(required=True, allow_none=True)
    user_agent = fields.Text(required=True, allow_none=True)
    request_id = fields.Text(required=True, allow_none=True)
    outcome = fields.Word(OUTCOMES, required=True)
    status = fields.Integer(required=True, allow_none=True)
    duration_ms = fields.Integer(required=True, allow_none=True)
    message = fields.Text(required=True)
    reason = fields.Text(required=True, allow_none=True)
    changes = fields.Dict(
        keys=fields.Text(),
        values=fields.Raw(),
        required=True,
        allow_none=True,
        metadata={"description": 'Field to `{"before": …, "after": …}`.'},
    )


class ChainPlaceSchema(Schema):
    """Where a row stands in the chain; `is_intact` says that its hash and its link to the row before hold."""

    seq = fields.Integer(required=True, at_least=1)
    prev_hash = fields.Text(required=True)
    hash = fields.Text(required=True)
    is_intact = fields.Boolean(required=True)


class LogDetailSchema(LogSchema):
    """A row, whole: with all that its event said, and its place in the chain."""

    details = fields.Dict(keys=fields.Text(), values=fields.Raw(), required=True, allow_none=True)
    chain = fields.Nested(ChainPlaceSchema, required=True)


class LogQuery(PageQuery, TimeRangeQuery):
    """Which rows. Without `from`, those of the last seven days, unless an id or an order number leads to them."""

    log_type = fields.Word(LOG_TYPES, data_key="type")
    user = fields.Text(length_min=1, length_max=_FILTER_LENGTH_MAX, metadata={"description": "An id or a name."})
    action = fields.Text(
        length_min=1, length_max=_FILTER_LENGTH_MAX, metadata={"description": "Exact, or all that begin as `cards.*`."}
    )
    q = fields.Text(
        length_min=1,
        length_max=_KEYWORD_LENGTH_MAX,
        metadata={"description": "A keyword; or the whole id of an order, a resource or a request."},
    )
    resource_type = fields.Text(length_min=1, length_max=_FILTER_LENGTH_MAX)
    resource_id = fields.Text(length_min=1, length_max=_FILTER_LENGTH_MAX)
    request_id = fields.Text(length_min=1, length_max=_FILTER_LENGTH_MAX)
    outcome = fields.Word(OUTCOMES)
    of_service = fields.Text(length_min=1, length_max=_FILTER_LENGTH_MAX, data_key="service")
    merchant_id = fields.Identifier()


class LogStatsQuery(TimeRangeQuery):
    """What to count by. Without `from`, the last seven days."""

    by = fields.Word(STATS_BY, required=True)


class LogCountSchema(Schema):
    """How many rows there are of one key: an action, a user's name, an outcome, or the first instant of an hour."""

    key = fields.Text(required=True)
    count = fields.Integer(required=True, at_least=1)


class LogStatsSchema(Schema):
    """Counts for plots: the largest first, hours in their order."""

    by = fields.Word(STATS_BY, required=True)
    from_time = fields.Timestamp(required=True, data_key="from")
    to_time = fields.Timestamp(required=True, data_key="to")
    items = fields.List(fields.Nested(LogCountSchema), required=True)


class ChainQuery(TimeRangeQuery):
    """Which part of the chain; without `from` and `to`, all of it. `from_seq` goes on where an answer ended."""

    from_seq = fields.QueryInteger(at_least=1, load_default=None)


class ChainBreakSchema(Schema):
    """Where the chain does not hold: from row `seq` to row `seq_last`."""

    kind = fields.Word(BREAK_KINDS, required=True)
    seq = fields.Integer(required=True)
    seq_last = fields.Integer(required=True)
    detail = fields.Text(required=True)
    id = fields.Text()
    time = fields.Timestamp()


class ChainReportSchema(Schema):
    """What a check of the chain found. `next_seq` is null when the whole range was checked."""

    ok = fields.Boolean(required=True)
    checked = fields.Integer(required=True, at_least=0)
    first_broken = fields.Nested(ChainBreakSchema, required=True, allow_none=True)
    broken = fields.List(fields.Nested(ChainBreakSchema), required=True)
    next_seq = fields.Integer(required=True, allow_none=True)
