"""Become a process of a home: read what it runs and is told, then be it.

The supervisor calls this file with the path of what `processes.write_orders` wrote, so that secrets stay out of its
configuration. The standard library only, and not much of that: every process starts with it.
"""

import json
import os
import re
import socket
import sys

_NOT_INHERITED = re.compile(r"(.*_)?DATABASE_URL|(.*_)?AMQP_URL|PASSPORT_KEY.*")


def become(path: str) -> None:
    """Replace this process by the one whose orders stand in a file."""
    with open(path) as file:
        orders = json.load(file)
    told = orders["environment"]
    if "INSTANCE_OF_HOST" in os.environ:  # one container an instance: its name is the container's
        told["INSTANCE"] = f"{told['INSTANCE'].partition('-')[0]}-{socket.gethostname()}"
    inherited = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.fullmatch(name)}
    os.execve(orders["command"][0], orders["command"], {**inherited, **told})  # noqa: S606


if __name__ == "__main__":
    become(sys.argv[1])
