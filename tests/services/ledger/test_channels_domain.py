"""What a channel's configuration may say, and what it comes to."""

from decimal import Decimal
from typing import Any

import pytest

from services.ledger.domain.channels import check_code, check_config, fee_of, merge_config
from shared.contracts.channels import InvalidChannelConfig
from shared.errors import InvalidRequest
from tests.services.ledger.channels import SECRET

NOWHERE: frozenset[str] = frozenset()
HTTP = {"base_url": "https://pay.example.com/api", "query_secret": SECRET}


def test_secrets_are_taken_apart_from_what_is_open() -> None:
    config = HTTP | {"callback_secrets": [SECRET], "fee_percent": "0.6", "timezone": "Asia/Shanghai", "currency": None}
    openly, secrets = check_config("http", config, allowed=NOWHERE)
    assert openly == {"base_url": HTTP["base_url"], "fee_percent": "0.6", "timezone": "Asia/Shanghai"}
    assert secrets == {"query_secret": SECRET, "callback_secrets": [SECRET]}


@pytest.mark.parametrize(
    ("kind", "config", "field"),
    [
        ("http", {"query_secret": SECRET}, "base_url"),
        ("http", {"base_url": "https://pay.example.com"}, "query_secret"),
        ("stripe", {}, "api_key"),
        ("statement", {"base_url": HTTP["base_url"]}, "base_url"),
        ("http", HTTP | {"api_key": "sk_test_12345678"}, "api_key"),
        ("statement", {"fee": "1"}, "fee"),
        ("http", HTTP | {"base_url": "http://pay.example.com"}, "base_url"),
        ("http", HTTP | {"base_url": "https://127.0.0.1"}, "base_url"),
        ("http", HTTP | {"query_secret": "hunter2"}, "query_secret"),
        ("http", HTTP | {"query_secret": "whsec_AAAA"}, "query_secret"),
        ("statement", {"callback_secrets": []}, "callback_secrets"),
        ("statement", {"callback_secrets": SECRET}, "callback_secrets"),
        ("statement", {"callback_secrets": [SECRET] * 4}, "callback_secrets"),
        ("statement", {"fee_percent": "0.12345"}, "fee_percent"),
        ("statement", {"fee_percent": "100.1"}, "fee_percent"),
        ("statement", {"fee_percent": "-1"}, "fee_percent"),
        ("statement", {"fee_percent": "NaN"}, "fee_percent"),
        ("statement", {"fee_percent": "1e1"}, "fee_percent"),
        ("statement", {"fee_percent": "1_0"}, "fee_percent"),
        ("statement", {"fee_percent": "01"}, "fee_percent"),
        ("statement", {"fee_percent": 0.6}, "fee_percent"),
        ("statement", {"currency": "XXQ"}, "currency"),
        ("statement", {"timezone": "../etc/passwd"}, "timezone"),
        ("statement", {"columns": {"price": "Amount"}}, "columns"),
        ("statement", {"columns": {"amount": "A", "fee": "A"}}, "columns"),
        ("statement", {"columns": {"amount": "Amount", "fee": " amount"}}, "columns"),
        ("statement", {"columns": {"upstream_ref": "Order_No"}}, "columns"),  # from which `order_no` would be read too
        ("statement", {"columns": {"amount": "A\nB"}}, "columns"),
        ("statement", {"columns": {}}, "columns"),
        ("statement", {"statuses": {"OK": "success", "ok ": "failed"}}, "statuses"),
        ("statement", {"statuses": {"O\nK": "success"}}, "statuses"),
        ("statement", {"date_format": "%Y-%m-%d %I:%M"}, "date_format"),  # in the morning, or in the evening?
        ("statement", {"statuses": {"OK": "paid"}}, "statuses"),
        ("statement", {"delimiter": "x"}, "delimiter"),
        ("statement", {"decimal_sign": "'"}, "decimal_sign"),
        ("statement", {"date_format": "%Y-%m"}, "date_format"),
        ("statement", {"date_format": "%Y-%m-%d %Q"}, "date_format"),
    ],
)
def test_field_that_does_not_fit_is_named(kind: str, config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidChannelConfig) as refused:
        check_config(kind, config, allowed=NOWHERE)
    assert set(refused.value.errors or {}) == {f"config.{field}"}
    assert SECRET not in str(refused.value)


def test_place_nearby_is_taken_where_the_operator_named_it() -> None:
    config = HTTP | {"base_url": "http://127.0.0.1:9000"}
    assert check_config("http", config, allowed=frozenset({"127.0.0.1:9000"}))[0]["base_url"] == config["base_url"]


def test_columns_may_change_their_fields() -> None:
    columns = {"upstream_ref": "order_no", "order_no": "Merchant order", "amount": "fee", "fee": "amount"}
    assert check_config("statement", {"columns": columns}, allowed=NOWHERE)[0] == {"columns": columns}


@pytest.mark.parametrize("date_format", ["%Y-%m-%d %H:%M:%S", "%d.%m.%Y", "%Y%m%d%H%M%S", "%m/%d/%y %I:%M %p"])
def test_usual_formats_of_dates_are_taken(date_format: str) -> None:
    check_config("statement", {"date_format": date_format}, allowed=NOWHERE)


def test_change_puts_some_fields_differently_and_null_takes_one_out() -> None:
    assert merge_config({"a": 1, "b": 2, "c": 3}, {"b": 4, "c": None}) == {"a": 1, "b": 4}


@pytest.mark.parametrize(
    ("amount", "percent", "fee"),
    [(10_000, "0.6", 60), (50, "1", 1), (49, "1", 0), (1, "50", 1), (0, "3", 0), (10**17, "100", 10**17)],
)
def test_fee_is_rounded_half_up_in_minor_units(amount: int, percent: str, fee: int) -> None:
    assert fee_of(amount, Decimal(percent)) == fee


@pytest.mark.parametrize("code", ["", "Alipay", "-x", "a/b", "a" * 33, None, 7])
def test_code_that_could_not_stand_in_a_path_is_refused(code: Any) -> None:
    with pytest.raises(InvalidRequest):
        check_code(code)
