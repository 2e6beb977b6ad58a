"""No secret gets past the last step before a log line is written."""

import io
import json
import logging
import sys
from dataclasses import dataclass

import pytest
import structlog

from shared.events import Event
from shared.logs import set_up_logs
from shared.masking import mask, mask_text, mask_typed, secret_in
from shared.outbox import outbox_row
from shared.passport import service_passport
from shared.rpc.wire import Call, kept_key

CARD = "4111 1111 1111 1111"
CANARIES = {
    "a JSON web token": "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJlLWhlcmU",
    "a bot's token": "123456789:AAF0123456789abcdefghijklmnopqrstuv",
    "an API key": "chk_01m86a1zxp17c8v06bxdhnx30m_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
    "a refresh token": "chr_c2VjcmV0c2VjcmV0c2VjcmV0",
    "a password in an address": "hunter2hunter2",
    "a card number": CARD,
    "a card number without blanks": CARD.replace(" ", ""),
    "an enrolment address": "otpauth://totp/x?secret=ABC",
}


@pytest.mark.parametrize("name", CANARIES)
def test_a_secret_in_a_text_is_masked(name: str) -> None:
    secret = CANARIES[name]
    text = (
        f"before amqp://user:{secret}@host/ after" if name == "a password in an address" else f"before {secret} after"
    )
    masked = mask_text(text)
    assert secret not in masked
    assert masked.startswith("before")
    assert masked.endswith("after")


@pytest.mark.parametrize("key", ["password", "new_password", "otp", "Authorization", "bot_token", "card_number", "pan"])
def test_a_value_under_a_secret_name_is_masked(key: str) -> None:
    assert mask({"outer": [{key: "plain words"}]}) == {"outer": [{key: "***"}]}


def test_what_is_no_secret_stays() -> None:
    harmless = {"order_no": "PO20261124000000001", "amount": "-12.50", "path": "/cards", "count": 1234567890123}
    assert mask(harmless) == harmless
    assert mask_text("4111 1111 1111 1112") == "4111 1111 1111 1112"  # not Luhn-valid


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111111",
        "4111-1111-1111-1111",
        "card 4111 1111 1111 1111 12/29",
        "card 4111 1111 1111 1111 123",
        "paid 20 4111 1111 1111 1111",
        "3782 822463 10005",
        "4111\u00a01111\u20111111 1111.",
    ],
)
def test_a_card_number_is_found_however_it_is_written(text: str) -> None:
    assert secret_in(text) == "card_number"
    assert "***" in mask_text(text)
    assert "1111 1111" not in mask_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Refund of 20261124000000018",  # an order's number that begins with its day, and is Luhn-valid
        "Ticket 20261124-000000018",
        "1763990000004",  # milliseconds, Luhn-valid
        "4111111111111112",
        "4111111111111111.50",  # an amount
        "41111111111111110000",
        "The bearer asked for it.",
        "https://example.com/a:b@c",
    ],
)
def test_what_is_no_secret_is_taken(text: str) -> None:
    assert secret_in(text) is None


@pytest.mark.parametrize(
    "name", ["a JSON web token", "a bot's token", "an API key", "a refresh token", "an enrolment address"]
)
def test_a_token_is_found_in_what_somebody_sent(name: str) -> None:
    assert secret_in({"notes": [f"see {CANARIES[name]}"]}) == "token"
    assert secret_in({CANARIES[name]: 1}) == "token"
    assert secret_in({"refresh_token": CANARIES[name]}) is None


@pytest.mark.parametrize("name", ["order_no", "upstream_ref", "user_id", "device_id", "fingerprint"])
def test_a_number_that_another_system_gave_is_taken_and_left_as_it_is(name: str) -> None:
    sent = {name: "4111111111111111", "amount": "4111111111111111"}
    assert secret_in({name: "4111111111111111"}) is None
    assert mask_typed(sent) == sent
    assert mask_typed({"note": sent[name]}) == {"note": "***1111"}


def test_one_of_our_own_ids_is_no_place_for_a_card_number() -> None:
    assert secret_in({"card_ids": ["4111111111111111"]}) == "card_number"


def test_a_secret_is_found_in_any_place_of_many_alike_rows() -> None:
    rows = [{"order_no": f"P{n:020}", "note": "nothing to see here", "amount": "1.00", "type": n} for n in range(100)]
    assert secret_in({"changes": rows}) is None
    assert mask_typed({"entries": rows}) == {"entries": rows}
    for place in (0, 50, 99):
        for spoilt, found in (
            ({"note": CARD}, "card_number"),
            ({"note": [{"text": CARD}]}, "card_number"),
            ({"order_no": CANARIES["an API key"]}, "token"),
            ({CARD: 1}, "card_number"),
        ):
            assert secret_in({"changes": [*rows[:place], rows[place] | spoilt, *rows[place + 1 :]]}) == found


def test_masking_leaves_what_it_was_given_as_it_was() -> None:
    given = {"entries": [{"note": "plain words, and many"}, {"note": f"card {CARD}"}]}
    assert mask_typed(given) == {"entries": [{"note": "plain words, and many"}, {"note": "card ***1111"}]}
    assert given["entries"][1] == {"note": f"card {CARD}"}


@pytest.mark.parametrize(
    ("name", "found"),
    [("a_long_way_to_what_somebody_else_gave_" * 4 + "order_no", None), ("a_long_way_to_a_text_" * 4, "card_number")],
)
def test_names_of_any_length_mean_the_same_and_are_not_kept(name: str, found: str | None) -> None:
    references = sys.getrefcount(name)
    assert secret_in({name: CARD}) == found
    assert sys.getrefcount(name) == references


def test_a_line_of_any_logger_is_masked_json(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        set_up_logs(service="sample")
        root.handlers[0].stream = stream  # type: ignore[attr-defined]
        structlog.get_logger("ours").info("signed in", password="canary-1", note=f"card {CARD}")
        logging.getLogger("theirs").error("bearer %s", CANARIES["a JSON web token"])
        try:
            raise ValueError(f"bad number {CARD}")
        except ValueError:
            logging.getLogger("theirs").exception("it broke")
    finally:
        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["service"] for line in lines] == ["sample"] * 3
    for canary in ("canary-1", CARD, CANARIES["a JSON web token"]):
        assert canary not in stream.getvalue()


@dataclass(frozen=True, kw_only=True)
class NoteWritten(Event):
    """Somebody wrote something down."""

    service = "masking_tests"
    resource_type = "order"

    order_id: str
    order_no: str
    reason: str
    changes: dict[str, dict[str, str]]


def test_an_event_leaves_the_process_without_what_people_should_not_have_typed() -> None:
    event = NoteWritten(
        order_id="4111111111111111",
        order_no="4111111111111111",
        reason=f"card {CARD}",
        changes={"name": {"before": "Ada", "after": f"key {CANARIES['an API key']}"}},
    )
    passport = service_passport("tests")
    call = Call(service="masking_tests", method="write_note", passport=passport, arguments={})
    envelope = json.loads(outbox_row(event, call)["envelope"])
    assert envelope["resource_id"] == "4111111111111111"
    assert envelope["payload"] == {
        "order_id": "4111111111111111",
        "order_no": "4111111111111111",
        "reason": "card ***1111",
        "changes": {"name": {"before": "Ada", "after": "key ***"}},
    }


def test_an_idempotency_key_that_is_a_secret_travels_as_its_keyed_hash() -> None:
    kept = kept_key("4111111111111111", key=b"k" * 32)
    assert kept is not None
    assert "4111" not in kept
    assert kept == kept_key("4111111111111111", key=b"k" * 32) != kept_key("4111111111111111", key=b"j" * 32)
    assert kept_key("an-ordinary-key", key=b"k" * 32) == "an-ordinary-key"
    assert kept_key(None, key=b"k" * 32) is None


def test_a_digest_is_left_as_it_is_though_a_card_number_seems_to_stand_in_it() -> None:
    sent = {"content_sha256": f"ab4111111111111111{'c' * 46}"}
    assert mask_typed(sent) == sent
