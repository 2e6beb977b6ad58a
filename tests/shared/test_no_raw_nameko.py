"""Services speak to the bus through the shared kernel only (RELIABILITY.md R1)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN_MODULES = ("nameko", "kombu", "amqp", "pika", "eventlet.green")
SOURCES = sorted((*ROOT.glob("services/**/*.py"), *ROOT.glob("gateway/**/*.py")))


def imported(path: Path) -> set[str]:
    """Return every module that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names - {"nameko.extensions"}  # a dependency of a service's own is no way to the bus


def test_there_are_sources_to_look_at() -> None:
    assert len(SOURCES) > 20


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_service_and_no_route_imports_the_bus_itself(path: Path) -> None:
    raw = {m for m in imported(path) for f in FORBIDDEN_MODULES if m == f or m.startswith(f + ".")}
    assert raw == set()
