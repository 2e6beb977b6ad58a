"""The architecture's table says what the code does."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from nameko.extensions import ENTRYPOINT_EXTENSIONS_ATTR

import shared.contracts
from operations.services import SERVICES
from shared.events import known_events
from shared.rpc.server import RpcEntrypoint
from shared.topology import subscriptions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
NAMES = (*SERVICES, "gateway")


def row(name: str) -> list[str]:
    """Return the cells of a service's row."""
    (line,) = re.findall(rf"^\| {name} \|(.*)\|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


def names_in(cell: str) -> set[str]:
    return set() if cell == "–" else {word.strip() for word in cell.split(",")}


@pytest.mark.parametrize("name", NAMES)
def test_the_table_lists_what_a_service_emits(name: str) -> None:
    for contract in pkgutil.iter_modules(shared.contracts.__path__):
        importlib.import_module(f"shared.contracts.{contract.name}")
    emitted = {key.split(".")[1] for key in known_events() if key.startswith(f"{name}.")}
    assert names_in(row(name)[1]) == emitted


@pytest.mark.parametrize("name", SERVICES)
def test_the_table_lists_what_a_service_hears_and_whom_it_calls(name: str) -> None:
    module, class_name = SERVICES[name].target.split(":")
    heard = subscriptions(getattr(importlib.import_module(module), class_name)).values()
    keys = {key for subscription in heard for key in subscription.routing_keys}
    words = {"every event" if key == "#" else key.split(".")[1] for key in keys}
    _, _, hears, calls = row(name)
    assert names_in(hears) == words
    assert names_in(calls) == set(SERVICES[name].callees)


@pytest.mark.parametrize("name", SERVICES)
def test_a_package_lists_its_methods(name: str) -> None:
    module, class_name = SERVICES[name].target.split(":")
    service = getattr(importlib.import_module(module), class_name)
    methods = {
        method
        for method, function in inspect.getmembers(service)
        if any(isinstance(e, RpcEntrypoint) for e in getattr(function, ENTRYPOINT_EXTENSIONS_ATTR, ()))
    }
    docstring = importlib.import_module(f"services.{name}").__doc__ or ""
    assert methods
    assert {method for method in methods if method not in docstring} == set()
