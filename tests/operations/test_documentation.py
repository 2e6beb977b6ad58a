"""What can be set and typed is documented, and so is nothing else."""

import click
import pytest

from operations.cli import main
from operations.home import GIVEN_NAMES
from operations.services import SERVICES
from operations.supervision import ROOT

PAGE = (ROOT / "docs/operations.md").read_text()
HELP = (ROOT / "countinghouse").read_text().partition('"""')[2].partition('"""')[0]


def general(name):
    """Return the name as the page writes it: `<SERVICE>_DATABASE_URL` stands for seven."""
    for service in SERVICES:
        if name.startswith(f"{service.upper()}_") and name.endswith(("DATABASE_URL", "AMQP_URL")):
            return name.replace(service.upper(), "<SERVICE>", 1)
    return name


@pytest.mark.parametrize("name", sorted({general(name) for name in GIVEN_NAMES}))
def test_each_setting_is_documented(name):
    assert f"`{name}`" in PAGE


def commands(group=main, prefix=""):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("command", list(commands()))
def test_each_command_is_documented_and_in_the_launchers_help(command):
    assert f"`{command}" in PAGE
    group, _, verb = command.partition(" ")
    assert group in HELP
    assert verb in HELP
