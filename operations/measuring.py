"""`./countinghouse benchmark NAME`: one of `benchmarks/`, on a throwaway PostgreSQL and RabbitMQ."""

import sys
from collections.abc import Sequence

from operations.errors import OperationFailed
from operations.progress import Progress
from operations.supervision import ROOT
from operations.throwaway import run_beside, throwaway_servers


def benchmarks() -> list[str]:
    """Return the names of the benchmarks; a module with an underscore is a part of one."""
    stems = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    return [stem for stem in stems if "_" not in stem]


def run_benchmark(name: str, arguments: Sequence[str]) -> int:
    """Run one benchmark. Returns: its code. Raises: OperationFailed for a name that is none."""
    if name not in benchmarks():
        raise OperationFailed(f"There is no benchmark {name!r}. There are: {', '.join(benchmarks())}.")
    with throwaway_servers(Progress(), purpose="benchmark") as addresses:
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        return run_beside(addresses, command)
