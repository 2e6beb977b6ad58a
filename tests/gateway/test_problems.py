"""Errors leave as RFC 9457 problems, or as pages to a browser, and say nothing of our insides."""

import pytest

from shared import errors
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


class LampTooHot(errors.Conflict):
    """The lamp is too hot to touch."""


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidRequest("no"), 422, "invalid_request"),
        (errors.Unauthenticated(), 401, "unauthenticated"),
        (errors.PermissionDenied(), 403, "permission_denied"),
        (errors.NotFound(), 404, "not_found"),
        (LampTooHot(), 409, "lamp_too_hot"),
        (errors.PayloadTooLarge(), 413, "payload_too_large"),
        (errors.RateLimited(retry_after_seconds=30), 429, "rate_limited"),
        (errors.UpstreamFailed(), 502, "upstream_failed"),
        (errors.Unavailable(), 503, "unavailable"),
        (errors.OutcomeUnknown(), 503, "outcome_unknown"),
        (errors.DeadlineExceeded(), 504, "deadline_exceeded"),
        (errors.InternalError("select 1"), 500, "internal_error"),
    ],
)
def test_each_family_has_its_status(
    gateway: Gateway, services: FakeServices, error: errors.ServiceError, status: int, code: str
) -> None:
    services.answer("users", "show_my_lamp", error)

    response = gateway.alice.get("/api/v1/lamps/mine")

    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    problem = response.get_json(force=True)
    assert problem.keys() >= {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert ("Retry-After" in response.headers) == (status in (429, 502, 503, 504))


def test_retry_after_is_what_the_service_said(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "show_my_lamp", errors.RateLimited(retry_after_seconds=30))
    assert gateway.alice.get("/api/v1/lamps/mine").headers["Retry-After"] == "30"


def test_error_of_an_unknown_class_keeps_family_and_code(gateway: Gateway, services: FakeServices) -> None:
    wire = {"code": "lamp_stolen", "family": "conflict", "title": "The lamp is gone.", "detail": "Gone.", "extra": {}}
    services.answer("users", "show_my_lamp", errors.ServiceError.from_wire(wire))

    response = gateway.alice.get("/api/v1/lamps/mine")

    assert (response.status_code, response.get_json(force=True)["code"]) == (409, "lamp_stolen")


def test_our_own_mistake_says_nothing_but_the_request_id(gateway: Gateway) -> None:
    response = gateway.nobody.get("/api/v1/lamps/bug", headers={"X-Request-ID": "req-bug-1"})

    assert response.status_code == 500
    assert response.get_json(force=True)["request_id"] == "req-bug-1"
    for inside in ("hunter2", "select", "RuntimeError", "Traceback"):
        assert inside not in response.text


def test_detail_of_a_services_mistake_does_not_leave(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "show_my_lamp", errors.InternalError("relation lamps does not exist at host db-7"))
    assert "db-7" not in gateway.alice.get("/api/v1/lamps/mine").text


def test_browser_gets_pages_for_403_404_and_500(gateway: Gateway) -> None:
    answers = [
        gateway.bob.post("/api/v1/lamps/l1/break", json={"reason": "x"}, headers=BROWSER),
        gateway.nobody.get("/no/such/page", headers=BROWSER),
        gateway.nobody.get("/api/v1/lamps/bug", headers=BROWSER),
    ]
    assert [answer.status_code for answer in answers] == [403, 404, 500]
    for answer in answers:
        assert answer.mimetype == "text/html"
        assert answer.headers["X-Request-ID"] in answer.text
    assert "cards:admin" in answers[0].text


def test_page_escapes_what_it_repeats(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "show_my_lamp", errors.NotFound("<script>alert(1)</script>"))
    page = gateway.alice.get("/api/v1/lamps/mine", headers=BROWSER).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/csv", ""])
def test_program_gets_a_problem_not_a_page(gateway: Gateway, accept: str) -> None:
    response = gateway.nobody.get("/no/such/page", headers={"Accept": accept})
    assert response.content_type == "application/problem+json"


def test_browser_gets_json_for_other_statuses(gateway: Gateway) -> None:
    response = gateway.nobody.get("/api/v1/lamps", headers=BROWSER)
    assert (response.status_code, response.content_type) == (401, "application/problem+json")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_wrong_method_names_the_right_ones(gateway: Gateway) -> None:
    response = gateway.alice.put("/api/v1/lamps")
    assert (response.status_code, response.get_json(force=True)["code"]) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(response.headers["Allow"].split(", "))


def test_nul_in_a_path_is_a_404(gateway: Gateway) -> None:
    assert gateway.alice.get("/api/v1/lamps/%00").status_code == 404
