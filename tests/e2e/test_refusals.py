"""Each wrong request gets the error that the contract names, and changes nothing (API.md)."""

import base64
import json
import secrets
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Api, Platform


def change(merchant: str, **fields: Any) -> dict[str, Any]:
    """Return a valid recharge, but for the fields given; None leaves a field out."""
    valid = {
        "merchant_id": merchant,
        "user_id": "u-refusals",
        "type": 321,
        "amount": "10.00",
        "currency": "CNY",
        "order_no": f"R{secrets.token_hex(6)}",
        "channel": "alipay",
    }
    return {name: value for name, value in (valid | fields).items() if value is not None}


def assert_problem(answer: requests.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Check the shape of a problem and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "code", "request_id"}
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["X-Request-ID"] or problem.get("is_replayed")
    assert code is None or problem["code"] == code, problem
    if status == 422:
        assert "errors" in problem
    return problem


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"amount": "-10.00"}, 422, "wrong_sign"),
        ({"type": 322}, 422, "wrong_sign"),
        ({"type": 231, "amount": "-1.00", "order_no": None}, 422, "wrong_sign"),
        ({"type": 341, "amount": "0", "reason": "zero"}, 422, "wrong_sign"),
        ({"type": 999}, 422, None),
        ({"type": 234}, 422, None),
        ({"type": "321"}, 422, None),
        ({"amount": 10.0}, 422, None),
        ({"amount": 10}, 422, None),
        ({"amount": "10.001"}, 422, None),
        ({"amount": "10.0001", "currency": "USD"}, 422, None),
        ({"amount": "1.0000001", "currency": "USDT"}, 422, None),
        ({"amount": "1e3"}, 422, None),
        ({"amount": "NaN"}, 422, None),
        ({"amount": None}, 422, None),
        ({"currency": "XXX"}, 422, None),
        ({"currency": None}, 422, None),
        ({"order_no": None}, 422, None),
        ({"colour": "red"}, 422, None),
        ({"type": 341, "order_no": None}, 422, None),  # an adjustment needs its reason
        ({"merchant_id": "mer_nowhere"}, 404, None),
        ({"type": 322, "amount": "-0.01", "user_id": "u-poor"}, 409, "insufficient_balance"),
    ],
)
def test_a_wrong_change_is_refused_by_name(
    platform: Platform, fields: dict[str, Any], status: int, code: str | None
) -> None:
    merchant = platform.merchant()
    assert_problem(platform.admin.post("/balance-changes", change(merchant, **fields)), status, code)
    assert platform.admin.get("/balance-logs", merchant_id=merchant).json()["items"] == []


def test_money_does_not_move_without_an_idempotency_key(platform: Platform) -> None:
    body = change(platform.merchant())
    assert_problem(platform.admin.post("/balance-changes", body, key=""), 422, "idempotency_key_required")


def test_the_same_key_answers_the_same_bytes_and_another_body_is_refused(platform: Platform) -> None:
    merchant, key = platform.merchant(), secrets.token_hex(8)
    body = change(merchant)
    first = platform.admin.post("/balance-changes", body, key=key)
    again = platform.admin.post("/balance-changes", body, key=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    other = platform.admin.post("/balance-changes", body | {"amount": "11.00"}, key=key)
    assert_problem(other, 409, "idempotency_key_reused")
    assert len(platform.admin.get("/balance-logs", merchant_id=merchant).json()["items"]) == 1


def test_a_refusal_is_replayed_too(platform: Platform) -> None:
    merchant, key = platform.merchant(), secrets.token_hex(8)
    body = change(merchant, type=322, amount="-5.00")
    first = platform.admin.post("/balance-changes", body, key=key)
    platform.recharge(merchant, body["user_id"], "100.00")
    again = platform.admin.post("/balance-changes", body, key=key)
    assert_problem(first, 409, "insufficient_balance")
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"


def test_what_is_not_json_or_too_much_or_of_another_type_is_refused(platform: Platform) -> None:
    url, http = f"{platform.admin.url}/api/v1/balance-changes", platform.admin.http
    json_type = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    assert_problem(http.post(url, data="{not json", headers=json_type, timeout=10), 400)
    assert_problem(http.post(url, data="[]", headers=json_type, timeout=10), 422)
    assert_problem(http.post(url, data="a=b", headers=json_type | {"Content-Type": "text/plain"}, timeout=10), 415)
    assert_problem(http.post(url, data=b"x" * 40_000_000, headers=json_type, timeout=30), 413)


def test_a_foreign_merchant_does_not_exist(platform: Platform) -> None:
    ours, theirs = platform.merchant(), platform.merchant()
    bob = platform.person(roles=["operator"], merchants=[ours])
    assert platform.recharge(theirs, "u-1", "50.00").status_code == 201
    assert platform.recharge(ours, "u-1", "7.00").status_code == 201
    foreign = bob.post("/balance-changes", change(theirs))
    unknown = bob.post("/balance-changes", change("mer_nowhere"))
    assert_problem(foreign, 404)
    assert {k: v for k, v in foreign.json().items() if k != "request_id"} == {
        k: v for k, v in unknown.json().items() if k != "request_id"
    }
    seen = bob.get("/balance-logs", user_id="u-1").json()["items"]
    assert [row["amount"] for row in seen] == ["7.00"]
    assert [a["balance"] for a in bob.get("/accounts/u-1").json()["items"]] == ["7.00"]
    assert theirs not in bob.get("/accounts", limit=500).text
    assert bob.get("/balance-logs", merchant_id=theirs).json().get("items", []) == []
    csv = bob.http.get(
        f"{bob.url}/api/v1/balance-logs", params={"user_id": "u-1"}, headers={"Accept": "text/csv"}, timeout=30
    )
    assert csv.headers["Content-Type"].startswith("text/csv")
    assert theirs not in csv.text
    assert "7.00" in csv.text


def test_a_lower_level_is_told_which_permission_lacks(platform: Platform) -> None:
    merchant = platform.merchant()
    auditor = platform.person(roles=["auditor"], merchants="all")
    problem = assert_problem(auditor.post("/balance-changes", change(merchant)), 403, "permission_denied")
    assert "ledger:operate" in json.dumps(problem)
    operator = platform.person(roles=["operator"], merchants="all")
    adjustment = change(merchant, type=341, order_no=None, reason="a gift")
    problem = assert_problem(operator.post("/balance-changes", adjustment), 403, "permission_denied")
    assert "ledger:admin" in json.dumps(problem)


def test_no_token_a_forged_one_and_an_expired_one_are_refused(platform: Platform) -> None:
    assert_problem(platform.anonymous.get("/balance-logs"), 401)
    token = str(platform.admin.http.headers["Authorization"]).removeprefix("Bearer ")
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    stretched = (
        base64.urlsafe_b64encode(json.dumps(claims | {"exp": claims["exp"] + 9999}).encode()).decode().rstrip("=")
    )
    nobody = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').decode().rstrip("=")
    for forged in (f"{header}.{stretched}.{signature}", f"{nobody}.{payload}.", "x", "", token[:-4] + "AAAA"):
        assert_problem(Api(platform.admin.url, forged or "-").get("/balance-logs"), 401)


def test_a_browser_gets_pages(platform: Platform) -> None:
    base, html = platform.admin.url, {"Accept": "text/html"}
    missing = requests.get(f"{base}/no-such-page", headers=html, timeout=10)
    assert (missing.status_code, missing.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "404" in missing.text
    auditor = platform.person(roles=["auditor"], merchants="all")
    forbidden = auditor.http.post(f"{base}/api/v1/merchants", json={}, headers=html, timeout=10)
    assert forbidden.status_code == 403
    assert "text/html" in forbidden.headers["Content-Type"]


def test_the_contract_is_served(platform: Platform) -> None:
    base = platform.admin.url
    document = requests.get(f"{base}/openapi.json", timeout=10).json()
    for path in (
        "/api/v1/balance-changes",
        "/api/v1/balance-logs/summary",
        "/api/v1/logs",
        "/api/v1/cards",
        "/api/v1/tasks",
    ):
        assert path in document["paths"], path
    assert requests.get(f"{base}/docs", timeout=10, allow_redirects=True).status_code == 200
    assert requests.get(f"{base}/healthz", timeout=10).status_code == 200
    assert requests.get(f"{base}/readyz", timeout=10).status_code == 200
    assert "gateway_requests" in requests.get(f"{base}/metrics", timeout=10).text
