"""The commands of `./countinghouse`, each a few lines over `system` and its neighbours."""

import os
import sys
from pathlib import Path

import click

from operations.errors import OperationFailed
from operations.home import Home
from operations.progress import Progress
from operations.supervision import ROOT
from operations.system import System


class _Sentences(click.Group):
    """A group whose commands end with a sentence instead of a trace when an operation fails."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except OperationFailed as error:
            click.echo(f"\n{error}", err=True)
            sys.exit(1)


@click.group(cls=_Sentences)
def main() -> None:
    """Run Countinghouse, the back office of a payment platform."""


def open_system() -> System:
    """Return the system of COUNTINGHOUSE_HOME."""
    home = Home(Path(os.environ.get("COUNTINGHOUSE_HOME") or ROOT / "var"))
    return System(home, progress=Progress())


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("paths", nargs=-1, type=click.UNPROCESSED)
def test(paths: tuple[str, ...]) -> None:
    """Run the linters and the tests, or only pytest on PATHS, on a throwaway PostgreSQL and RabbitMQ."""
    from operations.testing import run_tests

    sys.exit(run_tests(paths))


@main.command()
def down() -> None:
    """Stop everything and leave no process behind."""
    system = open_system()
    with system.home.lock():
        system.down()
