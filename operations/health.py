"""Whether a service serves, asked from its own container: `python -m operations.health ORDERS`.

Its queue has a consumer, and its database answers. Code 0 or 1.
"""

import json
import sys
from pathlib import Path

import amqp
import psycopg

from operations.errors import OperationFailed
from operations.rabbitmq import consumers


def check(orders: Path) -> None:
    """Check one service. Raises: OperationFailed, or what the broker or the database say."""
    told = json.loads(orders.read_text())["environment"]
    if not consumers(told["AMQP_URL"], f"rpc.{told['SERVICE']}"):
        raise OperationFailed("nobody takes calls")
    with psycopg.connect(told["DATABASE_URL"], connect_timeout=3) as connection:
        connection.execute("select 1")


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]))
    except (OperationFailed, OSError, amqp.AMQPError, psycopg.Error) as failure:
        sys.exit(str(failure))
