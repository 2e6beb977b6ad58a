"""A statement comes in whole or not at all, and once; its faults are named; whoever dies of it leaves nothing half."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from services.ledger.queries import statements as queries
from services.ledger.usecases import statement_import, statement_rows, statements
from services.ledger.usecases.statement_import import import_next_statement, import_statement
from shared.contracts.channels import ChannelNotFound
from shared.contracts.statements import (
    StatementAlreadyImported,
    StatementEmpty,
    StatementIncomplete,
    StatementInvalid,
    StatementNotFound,
    StatementNotReceiving,
    StatementsAreForAll,
    StatementTooLarge,
)
from shared.errors import IdempotencyKeyReused, InvalidRequest
from shared.paging import InvalidCursor, encode_cursor
from shared.passport import Passport
from tests.conftest import person
from tests.services.ledger.conftest import Books
from tests.services.ledger.orders import add_merchants, create, events
from tests.services.ledger.statements import ALICE, HEADER, add, records, row, send, take
from tests.services.ledger.worlds import CHANNEL, add_channel


@pytest.fixture
def books(engine: sa.Engine) -> Books:
    """A ledger with a channel, and nothing else."""
    books = Books(engine)
    books.run(lambda session: session.execute(sa.text("truncate channels, upstream_records, outbox cascade")))
    books.run(add_channel)
    return books


def configure(books: Books, **config: Any) -> None:
    """Say how the channel writes its statements."""
    changing = sa.text("update channels set config = cast(:config as jsonb)").bindparams(
        sa.bindparam("config", type_=sa.JSON)
    )
    books.run(lambda session: session.execute(changing, {"config": config}))


def faults(view: Any) -> list[tuple[int, str | None, str]]:
    return [(fault["line"], fault["column"], fault["message"]) for fault in view["faults"]]


def chunks_left(books: Books) -> int:
    return int(books.run(lambda session: session.scalar(sa.text("select count(*) from statement_chunks"))))


def wait(books: Books) -> None:
    """Let an hour pass since whatever was tried."""
    aging = sa.text("update statements set attempted_at = attempted_at - interval '1 hour'")
    books.run(lambda session: session.execute(aging))


def told(books: Books) -> list[str]:
    found: list[str] = books.run(events)
    return found


def test_a_clean_file_becomes_records_and_its_pieces_are_gone(books: Books) -> None:
    content = HEADER + row("u1") + row("u2", order_no="", fee="", status="failed", time="2026-11-22T23:59:59.5+08:00")
    view = take(books, content, filename="day.csv", chunk_bytes=50)
    assert (view["status"], view["rows_done"], view["rows_new"], view["percent_done"]) == ("imported", 2, 2, 100)
    assert (view["first_occurred_at"], view["last_occurred_at"]) == (
        "2026-11-22T09:30:00Z", "2026-11-22T15:59:59.500000Z",
    )  # fmt: skip
    first, second = records(books)["u1"], records(books)["u2"]
    assert (first.channel, first.order_no, first.amount, first.fee, first.currency, first.status) == (
        CHANNEL, "O-u1", 1000, 10, "CNY", "success",
    )  # fmt: skip
    assert (first.occurred_at, first.source, first.statement_id, first.line) == (
        datetime(2026, 11, 22, 9, 30, tzinfo=UTC), "statement", view["statement_id"], 2,
    )  # fmt: skip
    assert (second.order_no, second.fee, second.status, second.line) == (None, 0, "failed", 3)
    assert chunks_left(books) == 0
    assert told(books) == ["StatementImported"]


@pytest.mark.parametrize("sign", ["\\.", "\\N", "a\\tb", "\\\\", "%s"])
def test_signs_that_mean_something_to_the_database_are_copied_as_they_are(books: Books, sign: str) -> None:
    take(books, HEADER + row(sign, order_no=sign))
    take(books, HEADER + row("u1") + row(sign, order_no=sign, amount="7.00"))
    assert {(r.upstream_ref, r.order_no, r.amount) for r in records(books).values()} == {
        ("u1", "O-u1", 1000), (sign, sign, 700),
    }  # fmt: skip


def test_a_file_that_has_to_be_read_becomes_the_same_records(books: Books) -> None:
    clean = HEADER + "".join(row(f"u{n}", amount=f"{n}.50", fee="-0.10") for n in range(1, 30))
    take(books, clean)
    as_copied = records(books)
    books.run(lambda session: session.execute(sa.text("truncate upstream_records, statement_chunks, statements")))
    take(books, "\ufeff\r\n" + clean.replace("success", " Success ").replace("\nu1,", '\n"u1",').replace("\n", "\r\n"))
    as_read = records(books)
    assert as_read.keys() == as_copied.keys()
    for ref, record in as_read.items():
        assert record[2:10] == as_copied[ref][2:10]
        assert record.line == as_copied[ref].line + 1


def test_nothing_of_a_bad_file_is_kept_and_each_fault_is_named_by_line_and_column(books: Books) -> None:
    content = (
        HEADER
        + row("u1")
        + row("u2", amount="1.234")
        + "u3,O-3,1.00\n"
        + row("u4", status="weird", time="2026-02-30T00:00:00Z")
        + row("u1", amount="7.00")
        + row("u 6")
        + row("u7", currency="XXQ", amount="-1")
    )
    view = take(books, content)
    assert (view["status"], view["rows_done"], view["rows_refused"], view["rows_new"]) == ("refused", 7, 6, 0)
    assert [(line, column) for line, column, _ in faults(view)] == [
        (3, "amount"), (4, None), (5, "status"), (5, "time"), (6, "upstream_ref"), (7, "upstream_ref"),
        (8, "currency"), (8, "amount"),
    ]  # fmt: skip
    assert "line 2" in faults(view)[4][2]
    assert records(books) == {}
    assert told(books) == ["StatementRefused"]
    assert chunks_left(books) == 0


def test_of_a_bad_file_that_is_partial_the_good_rows_are_kept(books: Books) -> None:
    content = HEADER + row("u1") + row("u2", amount="x") + '"u3",O,1.00,,CNY,success,2026-11-22T09:30:00Z\n' + row("u1")
    view = take(books, content + '"u"4,O\n' + row("u5"), partial=True)
    assert (view["status"], view["rows_done"], view["rows_new"], view["rows_refused"]) == ("imported", 6, 3, 3)
    assert records(books).keys() == {"u1", "u3", "u5"}
    assert [line for line, _, _ in faults(view)] == [3, 5, 6]
    assert view["rows_unchanged"] == 0


def test_what_comes_after_a_quotation_mark_that_never_closes_is_not_taken_for_rows(books: Books) -> None:
    view = take(books, HEADER + row("u1") + '"u2,O\n' + row("u3") * 3, partial=True)
    assert (view["status"], view["rows_new"], [line for line, _, _ in faults(view)]) == ("imported", 1, [3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfea\x00", "UTF-16"),
        (HEADER.encode() + row("u1").encode() + "u2,订单,1".encode("gb18030"), "not UTF-8"),
        (HEADER.replace("amount", "sum").encode() + row("u1").encode(), "lacks amount"),
        (HEADER.replace("fee", "amount").encode() + row("u1").encode(), "twice"),
        (HEADER.encode(), "no rows"),
        (b"\n\n", "empty"),
        (b"x" * 200_000, "does not end"),
        (HEADER.encode() + b"x" * 200_000, "does not end"),
        (b"\x00\x01\x02", "header lacks"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(books: Books, content: bytes, message: str) -> None:
    view = take(books, content, partial=True)
    if view["status"] == "imported":  # what came before the place is kept of a partial one
        assert view["rows_new"] == 1
    assert message in faults(view)[-1][2]


def test_only_the_first_hundred_faults_are_kept(books: Books) -> None:
    view = take(books, HEADER + row("good") + "".join(row(f"u{n}", amount="x") for n in range(500)), partial=True)
    assert (len(view["faults"]), view["rows_refused"], view["rows_new"]) == (100, 500, 1)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_by_the_header(books: Books, delimiter: str) -> None:
    assert take(books, (HEADER + row("u1")).replace(",", delimiter))["rows_new"] == 1


def test_columns_words_times_and_currency_are_as_the_channel_says(books: Books) -> None:
    configure(
        books,
        columns={
            "upstream_ref": "Trade No",
            "order_no": "商户单号",
            "amount": "Sum",
            "status": "State",
            "time": "At",
        },
        statuses={"TRADE_SUCCESS": "success", "TRADE_CLOSED": "failed"},
        date_format="%Y-%m-%d %H:%M:%S",
        timezone="Asia/Shanghai",
        currency="CNY",
    )
    content = (
        "Remark,trade no,商户单号,SUM,State,At\nx,u1,O-1,1.50,TRADE_SUCCESS,2026-11-22 09:30:00\n"
        "y,u2,O-2,2.00,trade_closed,2026-11-22 09:30:00\n"
    )
    assert take(books, content)["rows_new"] == 2
    first, second = records(books)["u1"], records(books)["u2"]
    assert (first.order_no, first.amount, first.currency, first.status) == ("O-1", 150, "CNY", "success")
    assert first.occurred_at == datetime(2026, 11, 22, 1, 30, tzinfo=UTC)
    assert second.status == "failed"
    view = take(books, content.replace("u1", "u3").replace("TRADE_SUCCESS", "PAID"))
    assert faults(view) == [
        (2, "State", "Unknown status: 'PAID'. The channel's configuration says what its words mean.")
    ]


def test_a_later_statement_changes_a_record_and_an_earlier_one_does_not(books: Books) -> None:
    take(books, HEADER + row("u1", status="pending") + row("u2") + row("u3"))
    view = take(books, HEADER + row("u1") + row("u2") + row("u3", amount="11.00", time="2026-11-23T00:00:00Z"))
    assert (view["rows_new"], view["rows_changed"], view["rows_unchanged"]) == (0, 2, 1)
    after = records(books)
    assert (after["u1"].status, after["u3"].amount) == ("success", 1100)
    assert after["u1"].statement_id == view["statement_id"] != after["u2"].statement_id
    stale = take(books, HEADER + row("u1", status="pending") + row("u3", amount="12.00") + row("u4"))
    assert (stale["rows_new"], stale["rows_changed"], stale["rows_unchanged"]) == (1, 0, 2)
    assert {ref: record[1:] for ref, record in records(books).items() if ref != "u4"} == {
        ref: record[1:] for ref, record in after.items()
    }


def test_a_row_that_says_nothing_new_twice_is_a_fault_too(books: Books) -> None:
    take(books, HEADER + row("u1"))
    view = take(books, HEADER + row("u1") + row("u2") + row("u1"))
    assert (view["status"], [line for line, _, _ in faults(view)]) == ("refused", [4])
    assert records(books).keys() == {"u1"}


@pytest.mark.parametrize("rest", ["", "\n\n", '"never closed'])
def test_a_file_without_fees_and_numbers_leaves_those_that_are_known(books: Books, rest: str) -> None:
    take(books, HEADER + row("u1", status="pending"))
    header, line = "upstream_ref,amount,currency,status,time\n", "u1,10.00,CNY,success,2026-11-22T09:30:00Z\n"
    take(books, header + line + rest, partial=True)
    record = records(books)["u1"]
    assert (record.status, record.fee, record.order_no) == ("success", 10, "O-u1")


def test_a_record_that_was_voided_stays_so_until_the_platform_says_something_else(books: Books) -> None:
    take(books, HEADER + row("u1"))
    books.run(lambda session: session.execute(sa.text("update upstream_records set voided_by = 'cor_1'")))
    take(books, HEADER + row("u1", fee="0.20"))
    assert (records(books)["u1"].fee, records(books)["u1"].voided_by) == (20, "cor_1")
    take(books, HEADER + row("u1", amount="11.00"))
    assert (records(books)["u1"].amount, records(books)["u1"].voided_by) == (1100, None)


def test_one_reference_in_two_channels_is_two_records(books: Books) -> None:
    books.run(lambda session: add_channel(session, "wechat"))
    take(books, HEADER + row("u1"))
    assert take(books, HEADER + row("u1"), channel="wechat")["rows_new"] == 1


def test_mt940_and_camt_become_records(books: Books) -> None:
    mt940 = (
        ":20:A\n:25:1\n:28C:1\n:60F:C261121EUR0,\n:61:2611221122C12,50NTRFNONREF//BANK1\n:86:/EREF/O-1/REMI/x\n"
        ":61:2611221122C1,NTRFO-2//BANK2\n:62F:C261122EUR13,5\n-\n"
    )
    camt = (
        '<?xml version="1.0"?>\n<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08">'
        "<BkToCstmrStmt><Stmt>\n"
        '<Ntry><Amt Ccy="EUR">12.50</Amt><Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>2026-11-22</Dt></BookgDt>'
        "<NtryDtls><TxDtls><Refs><AcctSvcrRef>BANK3</AcctSvcrRef><EndToEndId>O-3</EndToEndId></Refs></TxDtls>"
        "</NtryDtls></Ntry></Stmt></BkToCstmrStmt></Document>"
    )
    assert take(books, mt940, format="mt940")["rows_new"] == 2
    assert take(books, camt, format="camt.053")["rows_new"] == 1
    found = {ref: (r.order_no, r.amount, r.status, r.line) for ref, r in records(books).items()}
    assert found == {
        "BANK1": ("O-1", 1250, "success", 5), "BANK2": ("O-2", 100, "success", 7), "BANK3": ("O-3", 1250, "success", 3),
    }  # fmt: skip
    # A bank's day begins at midnight of the platform's zone.
    assert records(books)["BANK1"].occurred_at == datetime(2026, 11, 21, 16, tzinfo=UTC)


def test_a_reference_that_a_bank_writes_twice_is_named_as_its_format_has_it(books: Books) -> None:
    line = ":61:2611221122C1,NTRFNONREF//B\n"
    view = take(books, f":20:A\n:60F:C261121EUR0,\n{line * 2}:62F:C261122EUR3,\n-\n", format="mt940", partial=True)
    assert [fault[:2] for fault in faults(view)] == [(4, ":61: reference"), (5, ":62F:")]
    assert (view["rows_new"], view["rows_refused"]) == (1, 2)
    entry = (
        '<Ntry><Amt Ccy="EUR">1</Amt><Sts>BOOK</Sts><BookgDt><Dt>2026-11-22</Dt></BookgDt>'
        "<AcctSvcrRef>C</AcctSvcrRef></Ntry>\n"
    )
    view = take(books, f"<BkToCstmrStmt>{entry * 2}</BkToCstmrStmt>", format="camt.053")
    assert [fault[:2] for fault in faults(view)] == [(2, "AcctSvcrRef")]
    configure(books, columns={"upstream_ref": "Trade No"})
    view = take(books, HEADER.replace("upstream_ref", "Trade No") + row("u1") * 2)
    assert [fault[:2] for fault in faults(view)] == [(3, "Trade No")]


def test_the_same_file_is_taken_once_for_a_channel(books: Books) -> None:
    first = take(books, HEADER + row("u1"))
    with pytest.raises(StatementAlreadyImported) as refusal:
        send(books, HEADER + row("u1"))
    assert refusal.value.extra == {"statement_id": first["statement_id"]}
    books.run(lambda session: add_channel(session, "wechat"))
    assert take(books, HEADER + row("u1"), channel="wechat")["status"] == "imported"


def test_a_file_that_was_refused_may_come_again(books: Books) -> None:
    bad = HEADER + row("u1", status="TRADE_SUCCESS")
    assert take(books, bad)["status"] == "refused"
    configure(books, statuses={"TRADE_SUCCESS": "success"})
    assert take(books, bad)["status"] == "imported"


def test_a_key_gets_the_first_answer_again_and_serves_no_other_file(books: Books) -> None:
    first = take(books, HEADER + row("u1"), key="k")
    again = send(books, HEADER + row("u1"), key="k")
    assert (again.is_replayed, again.result["statement_id"]) == (True, first["statement_id"])
    with pytest.raises(IdempotencyKeyReused):
        send(books, HEADER + row("u2"), key="k")
    take(books, "nonsense\n1\n", key="bad")
    with pytest.raises(StatementInvalid) as refusal:
        send(books, "nonsense\n1\n", key="bad")
    assert refusal.value.extra["is_replayed"]


def finish_at_once(books: Books, *uploads: dict[str, Any]) -> list[Any]:
    """End uploads at the same time. Returns: what each was answered, or was refused for."""
    statement_ids = []
    for upload in uploads:
        begun = {"channel": CHANNEL, "format": "csv"} | upload.get("terms", {})
        statement_id = books.run(lambda s, begun=begun: statements.begin_statement(s, ALICE, **begun))["statement_id"]
        add(books, statement_id, 0, upload["content"])
        statement_ids.append(statement_id)
    barrier = threading.Barrier(len(uploads))
    context = copy_context()

    def finish(statement_id: str, upload: dict[str, Any]) -> Any:
        ended = {
            "statement_id": statement_id, "chunks": 1, "size_bytes": len(upload["content"]),
            "sha256": hashlib.sha256(upload["content"]).hexdigest(), "idempotency_key": upload["key"],
        }  # fmt: skip

        def work(session: Any) -> Any:
            answer = statements.finish_statement(session, ALICE, **ended)
            session.execute(sa.text("select pg_sleep(0.2)"))  # the others come meanwhile
            return answer

        barrier.wait()
        try:
            return context.copy().run(lambda: books.run(work))
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(uploads)) as pool:
        return list(pool.map(finish, statement_ids, uploads))


def test_one_upload_that_is_sent_twice_at_once_is_one(books: Books) -> None:
    upload = {"content": (HEADER + row("u1")).encode(), "key": "k"}
    first, second = sorted(finish_at_once(books, upload, upload), key=lambda answer: answer.is_replayed)
    assert (first.is_replayed, second.is_replayed) == (False, True)
    assert first.result["statement_id"] == second.result["statement_id"]


def test_two_uploads_with_one_key_at_once_are_one_and_a_refusal(books: Books) -> None:
    answers = finish_at_once(books, *({"content": (HEADER + row(ref)).encode(), "key": "k"} for ref in ("u1", "u2")))
    assert {type(answer).__name__ for answer in answers} == {"Answer", "IdempotencyKeyReused"}


def test_one_file_from_two_clients_at_once_is_taken_once_for_each_channel(books: Books) -> None:
    books.run(lambda session: add_channel(session, "wechat"))
    content = (HEADER + row("u1")).encode()
    uploads = [{"content": content, "key": None, "terms": {"channel": code}} for code in (CHANNEL, CHANNEL, "wechat")]
    answers = finish_at_once(books, *uploads)
    assert sorted(type(answer).__name__ for answer in answers) == ["Answer", "Answer", "StatementAlreadyImported"]


def test_an_upload_is_its_senders_in_order_and_whole(books: Books, charlie: Passport) -> None:
    carol = person("Carol", "administrator", None)
    begun = books.run(lambda s: statements.begin_statement(s, ALICE, channel=CHANNEL, format="csv"))["statement_id"]
    add(books, begun, 0, b"a")
    add(books, begun, 0, b"something else")  # sent again, since the first answer was lost
    with pytest.raises(StatementNotFound):
        add(books, begun, 1, b"b", passport=carol)
    with pytest.raises(StatementTooLarge):
        add(books, begun, 512, b"b")
    with pytest.raises(StatementsAreForAll):
        add(books, begun, 1, b"b", passport=charlie)
    with pytest.raises(InvalidRequest):
        books.run(lambda s: statements.add_statement_chunk(s, ALICE, statement_id=begun, seq=1, content=b"no zlib"))
    upload = {"chunks": 2, "size_bytes": 2, "sha256": "00" * 32, "idempotency_key": None}
    with pytest.raises(StatementIncomplete):
        books.run(lambda s: statements.finish_statement(s, ALICE, statement_id=begun, **upload))
    books.run(lambda s: statements.abandon_statement(s, statement_id=begun, actor_id="usr_carol"))
    assert chunks_left(books) == 1
    books.run(lambda s: statements.abandon_statement(s, statement_id=begun, actor_id=ALICE.actor_id))
    assert chunks_left(books) == 0
    with pytest.raises(StatementNotReceiving):
        add(books, begun, 1, b"b")
    with pytest.raises(StatementEmpty):
        send(books, b"")
    with pytest.raises(ChannelNotFound):
        send(books, b"a", channel="nowhere")


def test_uploads_that_nobody_goes_on_with_are_swept(books: Books) -> None:
    old, fresh = (
        books.run(lambda s: statements.begin_statement(s, ALICE, channel=CHANNEL, format="csv"))["statement_id"]
        for _ in range(2)
    )
    for statement_id in (old, fresh):
        add(books, statement_id, 0, b"a")
    aging = sa.text("update statements set created_at = created_at - interval '2 hours' where id = :id")
    books.run(lambda session: session.execute(aging, {"id": old}))
    books.run(statements.sweep_uploads)
    assert chunks_left(books) == 1
    listed = books.run(lambda s: queries.list_statements(s, ALICE, limit=10, cursor=None))["items"]
    assert [view["statement_id"] for view in listed] == [fresh]


def test_whoever_sees_some_merchants_only_sees_and_sends_no_statement(books: Books, bob: Passport) -> None:
    view = take(books, HEADER + row("u1"))
    with pytest.raises(StatementsAreForAll):
        send(books, HEADER + row("u2"), passport=bob)
    with pytest.raises(StatementsAreForAll):
        books.run(lambda s: queries.list_statements(s, bob, limit=10, cursor=None))
    with pytest.raises(StatementsAreForAll):
        books.run(lambda s: queries.get_statement(s, bob, statement_id=view["statement_id"]))
    with pytest.raises(StatementNotFound):
        books.run(lambda s: queries.get_statement(s, ALICE, statement_id="sta_x"))


def test_statements_are_listed_newest_first_page_by_page(books: Books) -> None:
    taken = [take(books, HEADER + row(f"u{n}"))["statement_id"] for n in range(5)]
    found: list[str] = []
    cursor = None
    while True:
        page = books.run(lambda s, at=cursor: queries.list_statements(s, ALICE, limit=2, cursor=at))
        found += [view["statement_id"] for view in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == taken[::-1]
    assert books.run(lambda s: queries.list_statements(s, ALICE, limit=9, cursor=None, status="refused"))["items"] == []


def listed(books: Books, statement_id: str, *, limit: int = 100, **filters: Any) -> list[Any]:
    """Return all records of a statement, page by page."""
    found: list[Any] = []
    cursor = None
    while True:
        wanted = {"statement_id": statement_id, "limit": limit, "cursor": cursor} | filters
        page = books.run(lambda s, wanted=wanted: queries.list_statement_records(s, ALICE, **wanted))
        found += page["items"]
        assert len(page["items"]) <= limit
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_the_records_of_a_statement_are_listed_page_by_page_by_what_they_say(books: Books) -> None:
    other = take(books, HEADER + row("v1") + row("u3", status="pending") + row("u4"))["statement_id"]
    view = take(books, HEADER + "".join(row(f"u{n}", status="failed" if n == 2 else "success") for n in range(1, 6)))
    statement_id = view["statement_id"]
    assert (view["rows_new"], view["rows_changed"], view["rows_unchanged"]) == (3, 1, 1)
    for limit in (1, 2, 3, 4, 100):
        found = listed(books, statement_id, limit=limit)
        # What it changed is its own now; what it said again, and nothing new, stays with who said it first.
        assert [(record["upstream_ref"], record["line"]) for record in found] == [
            ("u3", 4), ("u1", 2), ("u2", 3), ("u5", 6),
        ]  # fmt: skip
    assert found[1] == {
        "channel": CHANNEL, "upstream_ref": "u1", "order_no": "O-u1", "amount": "10.00", "fee": "0.10",
        "currency": "CNY", "status": "success", "occurred_at": "2026-11-22T09:30:00Z", "source": "statement",
        "statement_id": statement_id, "line": 2, "voided": False,
    }  # fmt: skip
    assert {record["upstream_ref"] for record in listed(books, other)} == {"v1", "u4"}
    by: list[dict[str, str]] = [{"order_no": "O-u2"}, {"upstream_ref": "u2"}, {"status": "failed"}]
    assert [[record["line"] for record in listed(books, statement_id, **filters)] for filters in by] == [[3]] * 3
    assert listed(books, statement_id, upstream_ref="v1") == []
    assert listed(books, statement_id, upstream_ref="u2", status="success") == []


def test_a_statement_that_wrote_nothing_has_no_records(books: Books) -> None:
    refused = take(books, HEADER + row("u1", amount="x"))["statement_id"]
    waiting = send(books, HEADER + row("u1")).result["statement_id"]
    assert listed(books, refused) == listed(books, waiting) == []


def test_records_of_a_statement_are_as_the_statement_is_for_those_who_see_all(books: Books, bob: Passport) -> None:
    wanted: Any = {"statement_id": take(books, HEADER + row("u1"))["statement_id"], "limit": 10, "cursor": None}
    with pytest.raises(StatementsAreForAll):
        books.run(lambda s: queries.list_statement_records(s, bob, **wanted))
    with pytest.raises(StatementNotFound):
        books.run(lambda s: queries.list_statement_records(s, ALICE, **wanted | {"statement_id": "sta_x"}))
    for cursor in ("x", encode_cursor([1]), encode_cursor(["a", 1]), encode_cursor([-1, 1]), encode_cursor([1, 2**63])):
        with pytest.raises(InvalidCursor):
            books.run(lambda s, cursor=cursor: queries.list_statement_records(s, ALICE, **wanted | {"cursor": cursor}))


def test_an_import_that_dies_leaves_nothing_and_the_next_one_does_it(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement_id = send(books, HEADER + row("u1") + row("u2")).result["statement_id"]

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(statement_import, "_finish", die)  # everything is written, nothing is committed
        for _ in range(2):
            with pytest.raises(Killed):
                import_statement(books, statement_id=statement_id, zone_name="UTC")
    assert records(books) == {}
    assert chunks_left(books) == 1
    assert import_next_statement(books, zone_name="UTC") is None  # what stopped it may take a while to pass
    wait(books)
    view = import_next_statement(books, zone_name="UTC")
    assert view is not None
    assert (view["statement_id"], view["status"], view["rows_new"]) == (statement_id, "imported", 2)
    assert import_next_statement(books, zone_name="UTC") is None


def test_a_file_that_kills_whoever_imports_it_is_given_up(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    statement_id = send(books, HEADER + row("u1")).result["statement_id"]

    def fail(*_: Any) -> None:
        raise RuntimeError("our mistake")

    monkeypatch.setattr(statement_import, "copy_rows", fail)
    for _ in range(statement_import.ATTEMPTS_MAX):
        with pytest.raises(RuntimeError):
            import_next_statement(books, zone_name="UTC")
        wait(books)
    view = import_statement(books, statement_id=statement_id, zone_name="UTC")
    assert view is not None
    assert (view["status"], records(books)) == ("refused", {})


def test_two_processes_import_a_statement_once(books: Books) -> None:
    send(books, HEADER + "".join(row(f"u{n}") for n in range(3000)))
    found: list[Any] = []
    context = copy_context()
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        found.append(context.copy().run(lambda: import_next_statement(books, zone_name="UTC")))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [view["rows_new"] for view in found if view is not None] == [3000]
    assert told(books) == ["StatementImported"]


def test_progress_is_seen_while_the_import_runs(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement_import, "PROGRESS_SECONDS", 0)
    seen: list[tuple[str, int, int]] = []
    statement_id = send(books, HEADER + "".join(row(f"u{n}") for n in range(200)), chunk_bytes=1000).result[
        "statement_id"
    ]
    copy: Callable[..., Any] = statement_rows._copy

    def look(*args: Any, **kwargs: Any) -> Any:
        outcome = copy(*args, **kwargs)
        view = books.run(lambda s: queries.get_statement(s, ALICE, statement_id=statement_id))
        seen.append((view["status"], view["rows_done"], view["percent_done"]))
        return outcome

    monkeypatch.setattr(statement_rows, "_copy", look)
    import_statement(books, statement_id=statement_id, zone_name="UTC")
    [(status, rows_done, percent_done)] = seen
    assert (status, rows_done) == ("importing", 200)
    assert 0 < percent_done <= statement_import.PERCENT_READ


def test_an_order_shows_what_its_channel_says_of_it(books: Books) -> None:
    books.run(add_merchants)
    order = books.run(lambda s: create(s, order_no="O-u1", channel=CHANNEL))
    books.run(lambda session: add_channel(session, "wechat"))
    take(books, HEADER + row("u1") + row("u2"))
    take(books, HEADER + row("u3", order_no="O-u1"), channel="wechat")
    found = books.run(lambda s: queries.records_of_order(s, s.execute(sa.text("select * from orders")).one()))
    assert order["order_no"] == "O-u1"
    assert [(r["upstream_ref"], r["amount"], r["fee"], r["voided"]) for r in found] == [("u1", "10.00", "0.10", False)]
