"""The route of card files: which bodies it takes, and that it passes them on as text."""

import io

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

PATH = "/api/v1/cards/import"
TEXT = "bin,holder_name,currency\n411111,Ada Lovelace,CNY\n"
REPORT = {"is_dry_run": True, "created": 0, "assigned": 0, "refused": 0, "items": []}


@pytest.fixture
def services(services: FakeServices) -> FakeServices:
    services.answer("cards", "import_cards", REPORT)
    return services


def passed_on(services: FakeServices) -> list[dict[str, object]]:
    return [call.arguments for call in services.calls if call.service == "cards"]


def test_file_is_taken_as_the_body_or_in_a_form(gateway: Gateway, services: FakeServices) -> None:
    body = gateway.alice.post(f"{PATH}?dry_run=true", data=TEXT.encode("utf-8-sig"), content_type="text/csv")
    form = gateway.alice.post(PATH, data={"file": (io.BytesIO(TEXT.encode()), "cards.csv")})

    assert (body.status_code, body.get_json(), form.status_code) == (200, REPORT, 200)
    assert passed_on(services) == [{"text": TEXT, "dry_run": True}, {"text": TEXT, "dry_run": False}]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"json": {"file": TEXT}}, 415),
        ({"data": TEXT, "content_type": "text/plain"}, 415),
        ({"data": b"\xff\xfe", "content_type": "text/csv"}, 422),
        ({"data": b"a\0b", "content_type": "text/csv"}, 422),
        ({"data": {"file": "no file"}, "content_type": "multipart/form-data"}, 422),
        ({"data": {"other": (io.BytesIO(b"x"), "x.csv")}}, 422),
        ({"data": b"x" * (1024 * 1024 + 1), "content_type": "text/csv"}, 413),
    ],
)
def test_anything_else_is_refused(
    gateway: Gateway, services: FakeServices, sent: dict[str, object], status: int
) -> None:
    assert gateway.alice.post(PATH, **sent).status_code == status
    assert passed_on(services) == []
