"""The commands of `./countinghouse`, each a few lines over `system` and its neighbours."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from operations import debian
from operations.bus import GATEWAY
from operations.containers import CHOICE, Containers, are_possible
from operations.errors import AnotherCommandRuns, OperationFailed
from operations.home import Home
from operations.processes import is_of
from operations.progress import Progress
from operations.supervision import ROOT
from operations.system import System
from operations.tables import print_table

if TYPE_CHECKING:
    from operations.rotation import Sealed

NOT_ALL_WELL = 3
LOG_LINES = "200"


class _Sentences(click.Group):
    """A group whose commands end with a sentence instead of a trace when an operation fails."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; code 1 for what failed, 130 for what was interrupted."""
        try:
            return super().invoke(ctx)
        except OperationFailed as error:
            click.echo(f"\n{error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)


@click.group(cls=_Sentences)
@click.pass_context
def main(context: click.Context) -> None:
    """Run Countinghouse, the back office of a payment platform."""
    if context.invoked_subcommand in (None, "up", "test") or "--help" in sys.argv:
        return
    containers = Containers(open_home())
    if containers.are_chosen:
        sys.exit(containers.hand_over(sys.argv[1:]))


def open_home() -> Home:
    """Return COUNTINGHOUSE_HOME."""
    return Home(Path(os.environ.get("COUNTINGHOUSE_HOME") or ROOT / "var"))


def open_system() -> System:
    """Return the system of COUNTINGHOUSE_HOME."""
    return System(open_home(), progress=Progress())


@main.command()
@click.option("--demo", is_flag=True, help="Fill in sample data, so that each page has something to show.")
@click.option("--detach", is_flag=True, help="Return when everything runs, instead of staying until Ctrl-C.")
@click.option("--port", type=click.IntRange(1, 65535), help="The gateway's port; kept for the next time.")
def up(demo: bool, detach: bool, port: int | None) -> None:
    """Start everything, and print where to sign in. Running it again is harmless."""
    from operations.watching import sign_in_lines, watch

    _end_like_ctrl_c()
    home = open_home()
    home.take_given(os.environ)
    system = System(home, progress=Progress())
    if port:
        system.move_gateway(port)
    if _needs_containers(system):
        _up_in_containers(system, demo=demo, detach=detach)
        return
    was_running = system.supervisor.is_running
    try:
        with home.lock():
            system.up()
            if demo:
                _fill_in_sample_data(system)
        click.echo("\n" + "\n".join(sign_in_lines(system)))
        if was_running:
            click.echo("It was running already and goes on.")
        elif not detach:
            watch(system)
    except AnotherCommandRuns:
        raise
    except BaseException:
        if not was_running:
            _stop(system.down)
        raise
    if not (detach or was_running):
        _stop(system.down)


def _needs_containers(system: System) -> bool:
    """Return whether nothing but a container engine can give this machine a PostgreSQL and a RabbitMQ."""
    choice = os.environ.get(CHOICE)
    if choice or Containers(system.home).are_chosen:
        return choice in (None, "containers")
    return bool(system.servers.missing_packages()) and not debian.can_install() and are_possible()


def _up_in_containers(system: System, *, demo: bool, detach: bool) -> None:
    from operations.watching import sign_in_lines, wait_for_ctrl_c

    containers = Containers(system.home)
    with system.home.lock():
        containers.up(system.progress)
        if demo:
            _fill_in_sample_data(system)
    click.echo("\n" + "\n".join(sign_in_lines(system)))
    if not detach:
        wait_for_ctrl_c(system)
        _stop(lambda: containers.down(system.progress))


def _fill_in_sample_data(system: System) -> None:
    from operations import demo

    demo.fill(system)


def _stop(stop: Callable[[], None]) -> None:
    """Stop to the end: an impatient second Ctrl-C must not leave half of it running."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop()


def _end_like_ctrl_c() -> None:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


@main.command()
def down() -> None:
    """Stop everything and leave no process behind. The data stays."""
    system = open_system()
    with system.home.lock():
        system.down()


@main.command()
def status() -> None:
    """Show each process, and whether the whole is ready; the code is 0 only when it is."""
    system = open_system()
    states = system.states()
    if not states:
        click.echo("Nothing runs.")
        sys.exit(NOT_ALL_WELL)
    rows = [(row.name, row.state.lower(), row.pid or "", _age(row.seconds_up)) for row in states.values()]
    print_table(("process", "state", "pid", "up"), rows)
    readiness = system.readiness()
    click.echo(f"\n{system.url}  {readiness}")
    sys.exit(0 if readiness == "ready" else NOT_ALL_WELL)


def _age(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"


@main.command()
@click.argument("service", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
def logs(service: str | None, follow: bool) -> None:
    """Show what a service says, or all processes."""
    system = open_system()
    files = sorted(system.home.logs.glob("*.log"))
    if service:
        files = [path for path in files if is_of(path.stem, service)]
    if not files:
        raise OperationFailed(f"There are no logs of {service or 'this home'} in {system.home.logs}.")
    os.execvp("tail", ["tail", "-n", LOG_LINES, *(["-F"] if follow else []), *map(str, files)])  # noqa: S606


@main.command()
@click.argument("service")
def restart(service: str) -> None:
    """Restart a service, one instance after the other."""
    system = open_system()
    with system.home.lock():
        system.restart(service)
        system.wait_ready()


@main.command()
@click.argument("assignment", metavar="SERVICE=N")
def scale(assignment: str) -> None:
    """Run N instances of a service, or N workers of the gateway."""
    service, _, count = assignment.partition("=")
    if not count.isdigit():
        raise OperationFailed(f"Write it like this: ./countinghouse scale ledger=2, not {assignment!r}.")
    system = open_system()
    with system.home.lock():
        system.scale(service, int(count))
    click.echo(f"{service}: {count} {'workers' if service == GATEWAY else 'instances'}")


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("paths", nargs=-1, type=click.UNPROCESSED)
def test(paths: tuple[str, ...]) -> None:
    """Run the linters and the tests, or only pytest on PATHS, on a throwaway PostgreSQL and RabbitMQ."""
    from operations.testing import run_tests

    _end_like_ctrl_c()
    sys.exit(run_tests(paths))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", default="")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def benchmark(name: str, arguments: tuple[str, ...]) -> None:
    """Run one of the benchmarks on a throwaway PostgreSQL and RabbitMQ; without a NAME, list them."""
    from operations.measuring import benchmarks, run_benchmark

    if not name:
        click.echo("\n".join(benchmarks()))
        return
    _end_like_ctrl_c()
    sys.exit(run_benchmark(name, arguments))


@main.group()
def changes() -> None:
    """Make a file of balance changes, and post one."""


_FURTHER = {"ignore_unknown_options": True, "help_option_names": []}


@changes.command("make", context_settings=_FURTHER)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def make_changes(arguments: tuple[str, ...]) -> None:
    """Write a CSV file of valid changes of all types to the standard output."""
    _become("simulators.sample_data", "changes", *arguments)


@changes.command("post", context_settings=_FURTHER)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def post_changes(arguments: tuple[str, ...]) -> None:
    """Post a CSV file of changes through the gateway, once however often, and compare the sums."""
    if not {"--url", "--sign-in"} & set(arguments) and not {"-h", "--help"} & set(arguments):
        arguments = (*arguments, "--sign-in", str(open_system().home.first_sign_in))
    _become("simulators.post_changes", *arguments)


def _become(module: str, *arguments: str) -> None:
    command = [sys.executable, "-P", "-m", module, *arguments]
    os.execve(command[0], command, {**os.environ, "PYTHONPATH": str(ROOT)})  # noqa: S606


@main.group()
def admin() -> None:
    """Look after administrators."""


@admin.command("create")
@click.argument("username")
def create_administrator(username: str) -> None:
    """Create one more administrator, and print the name and the first password."""
    from operations.deployment import add_administrator

    system = open_system()
    made = add_administrator(system.home, system.servers, username)
    click.echo(f"{made['username']}\n{made['password']}")


@main.group()
def ledger() -> None:
    """Look after the ledger."""


@ledger.command("verify")
def verify_ledger() -> None:
    """Prove every account from its first entry to its last, and the trial balance."""
    _verify("ledger", "verify_ledger")


@main.group()
def audit() -> None:
    """Look after the audit log."""


@audit.command("verify")
def verify_audit() -> None:
    """Check the hash chain over every log row."""
    from operations.calls import Caller
    from shared.contracts.audit import verify_in_calls

    with Caller(open_system()) as caller:
        report = verify_in_calls(partial(caller.call, "audit", "verify_chain"))
    _tell(report)


def _verify(service: str, method: str) -> None:
    from operations.calls import Caller

    with Caller(open_system()) as caller:
        report = caller.call(service, method)
    _tell(report)


def _tell(report: Mapping[str, Any]) -> None:
    for name, value in report.items():
        click.echo(f"{name}: {value}")
    sys.exit(0 if report.get("ok") else 1)


@main.group("rotate-keys")
def rotate_keys() -> None:
    """Change keys while everything runs."""


_REASON = click.option("--reason", default="Routine rotation.", show_default=True, help="It stands in the audit log.")
_DROP_OLD = click.option("--drop-old", is_flag=True, help="Forget the old keys, which nothing may use any more.")


@rotate_keys.command("cards")
@_REASON
@_DROP_OLD
def rotate_card_keys(reason: str, drop_old: bool) -> None:
    """Seal and index card numbers under new keys; what is there is moved in the background."""
    from operations.rotation import CARDS

    _rotate(CARDS, reason=reason, drop_old=drop_old)


@rotate_keys.command("channels")
@_REASON
@_DROP_OLD
def rotate_channel_keys(reason: str, drop_old: bool) -> None:
    """Seal channels' secrets under a new key; what is there is moved in the background."""
    from operations.rotation import CHANNELS

    _rotate(CHANNELS, reason=reason, drop_old=drop_old)


def _rotate(sealed: "Sealed", *, reason: str, drop_old: bool) -> None:
    from operations.rotation import change_keys, drop_old_keys

    system = open_system()
    with system.home.lock():
        (drop_old_keys if drop_old else change_keys)(system, sealed, reason=reason)


@rotate_keys.command("signing")
@_REASON
@click.option("--after", type=click.IntRange(10), help="Seconds until the new key signs; it is published at once.")
def rotate_signing_key(reason: str, after: int | None) -> None:
    """Sign access tokens with a new key; the one before it is published until its last token has ended."""
    from operations.signing_keys import PUBLISHED_SECONDS, rotate_signing_key

    system = open_system()
    with system.home.lock():
        signs_from = rotate_signing_key(system, reason=reason, after_seconds=after or PUBLISHED_SECONDS)
    click.echo(f"A new key is published, and signs from {signs_from:%H:%M:%S} UTC.")


@rotate_keys.command("status")
def show_keys() -> None:
    """Show which keys there are, and how much is still under an old one."""
    from operations.rotation import CARDS, CHANNELS, key_rows

    system = open_system()
    rows = [row for sealed in (CARDS, CHANNELS) for row in key_rows(system, sealed)]
    print_table(("kind", "key", "state", "in use by"), rows)


@main.group()
def dlq() -> None:
    """Look after the messages that no handler could take."""


_QUEUE = click.option(
    "--queue", type=click.Choice(["dead_letters", "quarantine"]), default="dead_letters", show_default=True
)


@dlq.command("list")
@_QUEUE
def list_dead_letters(queue: str) -> None:
    """Show what lies there, oldest first, and why."""
    from operations.dead_letters import list_messages

    letters = list_messages(open_system().servers.amqp_url, queue)
    rows = [(letter.event_id, letter.event, letter.queue, letter.attempts, letter.reason) for letter in letters]
    print_table(("event_id", "event", "queue", "attempts", "reason"), rows)
    click.echo(f"\n{len(letters)} in {queue}")


@dlq.command("redrive")
@_QUEUE
def redrive_dead_letters(queue: str) -> None:
    """Deliver them again to the queues that gave them up; handlers take each event once, however often it comes."""
    from operations.dead_letters import redrive

    moved, left = redrive(open_system().servers.amqp_url, queue)
    click.echo(f"{moved} delivered again, {left} left: they name no queue that exists")
