"""The registry of parameters: each has a valid default, is read by whom it says, and is explained to people."""

import json
import re
from pathlib import Path

import pytest

from services.settings.domain import complaints_about
from shared.contracts.settings import PARAMETERS, Parameter

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "settings.md"
EVERY_PARAMETER = pytest.mark.parametrize("parameter", PARAMETERS.values(), ids=PARAMETERS)


@EVERY_PARAMETER
def test_default_is_a_value_that_the_parameter_can_take(parameter: Parameter) -> None:
    assert complaints_about(parameter, parameter.default) == []


@EVERY_PARAMETER
def test_each_service_that_a_parameter_affects_reads_it(parameter: Parameter) -> None:
    assert parameter.affects, "a parameter that nothing reads is a defect"
    for service in parameter.affects:
        folder = ROOT / "gateway" if service == "gateway" else ROOT / "services" / service
        sources = "".join(path.read_text() for path in folder.rglob("*.py"))
        assert f'"{parameter.key}"' in sources, f"{service} does not read {parameter.key}"


@EVERY_PARAMETER
def test_each_service_that_reads_a_parameter_is_named_as_affected(parameter: Parameter) -> None:
    folders = [*(ROOT / "services").iterdir(), ROOT / "gateway"]
    readers = {
        folder.name
        for folder in folders
        if folder.is_dir() and any(f'"{parameter.key}"' in path.read_text() for path in folder.rglob("*.py"))
    }
    assert readers - {"settings"} == set(parameter.affects)


def test_every_parameter_is_documented_and_nothing_else_is() -> None:
    documented = set(re.findall(r"^### `([a-z_.]+)`$", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == set(PARAMETERS)


@EVERY_PARAMETER
def test_document_tells_default_and_readers(parameter: Parameter) -> None:
    section = DOCUMENT.read_text().split(f"### `{parameter.key}`\n")[1].split("\n### ")[0]
    shown = json.dumps(parameter.default) if isinstance(parameter.default, bool) else parameter.default
    assert f"`{shown}`" in section
    for service in parameter.affects:
        assert service in section
