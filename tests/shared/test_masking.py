"""No secret gets past the last step before a log line is written."""

import io
import json
import logging

import pytest
import structlog

from shared.logs import mask, mask_text, set_up_logs

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
