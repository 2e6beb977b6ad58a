"""Posts a file of balance changes through the gateway, and compares what the gateway then says with the file.

    python -m simulators.post_changes changes.csv --sign-in var/first-sign-in.json
    COUNTINGHOUSE_PASSWORD=… python -m simulators.post_changes changes.csv --url http://127.0.0.1:8080 --username ada
    COUNTINGHOUSE_API_KEY=… python -m simulators.post_changes changes.csv --url http://127.0.0.1:8080

Each batch goes under a key made of the file's hash and the batch's number, and is repeated under it until its answer
is final: whatever dies meanwhile, and however often the file is posted, each change is posted once.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

from simulators.gateway_client import GatewayClient, GatewayRefused, GatewayUnreachable, SignIn
from simulators.sample_data import SampleChange, Summary, TypeTotal, read_changes, summarize

BATCH_SIZE = 500
BATCH_SIZE_MAX = 10_000
SINCE_EVER, FOR_EVER = "2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"
SUMMARY_THREADS = 4
UNSAID = ""


@dataclass
class Posted:
    """What became of a file's batches. A replayed one had been posted before."""

    batches: int = 0
    replayed: int = 0
    entries: int = 0


def ensure_merchants(
    client: GatewayClient, codes: Iterable[str], *, names: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return the ids of the merchants with these codes, made where they lack.

    names: what to call those that are made.
    """
    known = {merchant["code"]: str(merchant["id"]) for merchant in client.items("/merchants")}
    for code in sorted(set(codes) - known.keys()):
        body = {"code": code, "name": names.get(code, f"Sample merchant {code}")}
        known[code] = client.post("/merchants", body, key=f"sample-merchant-{code}").body["id"]
    return {code: known[code] for code in sorted(set(codes))}


def post_changes(
    client: GatewayClient,
    changes: Sequence[SampleChange],
    merchant_ids: dict[str, str],
    *,
    file_hash: str,
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[Posted], None] = lambda posted: None,
) -> Posted:
    """Post the changes in their order, a batch at a time, each all or none.

    file_hash: with the number of the batch it is the batch's idempotency key.
    Raises: GatewayRefused, with the batch's problem; GatewayUnreachable.
    """
    posted = Posted()
    for first in range(0, len(changes), batch_size):
        batch = [change_body(change, merchant_ids) for change in changes[first : first + batch_size]]
        key = f"changes-{file_hash[:32]}-{first // batch_size + 1}"
        reply = client.post("/balance-changes/batch", {"changes": batch, "atomic": True}, key=key)
        posted.batches += 1
        posted.replayed += reply.is_replayed
        posted.entries += reply.body["posted"]
        on_batch(posted)
    return posted


def change_body(change: SampleChange, merchant_ids: dict[str, str]) -> dict[str, Any]:
    """Return a row as the API takes it."""
    said = {name: value for name, value in asdict(change).items() if value != UNSAID}
    merchant_code = said.pop("merchant_code")
    return {**said, "merchant_id": merchant_ids[merchant_code], "type": int(change.type)}


def summary_of_gateway(make_client: Callable[[], GatewayClient], user_ids: Iterable[str]) -> Summary:
    """Ask the gateway for the summary of each user, and return the sum of them."""

    def ask(some: Sequence[str]) -> list[dict[str, Any]]:
        client = make_client()
        query = {"from": SINCE_EVER, "to": FOR_EVER}
        return [
            row for user_id in some for row in client.get("/balance-logs/summary", user_id=user_id, **query)["items"]
        ]

    users = sorted(set(user_ids))
    shares = [users[start::SUMMARY_THREADS] for start in range(SUMMARY_THREADS)]
    total: Summary = {}
    with ThreadPoolExecutor(SUMMARY_THREADS) as threads:
        for rows in threads.map(ask, shares):
            for row in rows:
                key = int(row["type"]), str(row["currency"])
                more = TypeTotal(int(row["count"]), Decimal(row["increase"]), Decimal(row["decrease"]))
                total[key] = _sum(total.get(key), more)
    return dict(sorted(total.items()))


def _sum(total: TypeTotal | None, more: TypeTotal) -> TypeTotal:
    if total is None:
        return more
    return TypeTotal(total.count + more.count, total.increase + more.increase, total.decrease + more.decrease)


def table_of(file: Summary, gateway: Summary) -> list[str]:
    """Return both summaries side by side, a type and currency a line, as lines of text."""
    lines = [f"{'':<9}{'file':>26}{'gateway':>26}", f"{'type':<9}{'count':>8}{'net':>18}{'count':>8}{'net':>18}  equal"]
    for key in sorted(file.keys() | gateway.keys()):
        ours, theirs = file.get(key), gateway.get(key)
        cells = "".join(f"{t.count:>8}{t.net:>18}" if t else f"{'-':>8}{'-':>18}" for t in (ours, theirs))
        lines.append(f"{key[0]} {key[1]:<5}{cells}  {'yes' if ours == theirs else 'NO'}")
    return lines


def sign_in_of(wanted: argparse.Namespace) -> SignIn:
    """Return who signs in, from the command line and the environment. Raises: ValueError."""
    if wanted.sign_in:
        return SignIn.read(wanted.sign_in)
    api_key = os.environ.get("COUNTINGHOUSE_API_KEY", "")
    password = os.environ.get("COUNTINGHOUSE_PASSWORD", "")
    if not wanted.url or not (api_key or (wanted.username and password)):
        raise ValueError(
            "say --sign-in FILE, or --url with COUNTINGHOUSE_API_KEY or --username and COUNTINGHOUSE_PASSWORD"
        )
    return SignIn(url=wanted.url, username=wanted.username, password=password, api_key=api_key)


def main(arguments: list[str] | None = None) -> int:
    """Post a file and compare. Returns: 0 where the summaries are equal."""
    parser = argparse.ArgumentParser(prog="python -m simulators.post_changes", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--sign-in", type=Path, help="first-sign-in.json, as `./countinghouse up` leaves it")
    parser.add_argument("--url", default="")
    parser.add_argument("--username", default="")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, choices=range(1, BATCH_SIZE_MAX + 1), metavar="N")
    wanted = parser.parse_args(arguments)
    try:
        sign_in = sign_in_of(wanted)
        content = wanted.file.read_bytes()
        changes = read_changes(content.decode().splitlines())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        return _post_and_compare(sign_in, changes, hashlib.sha256(content).hexdigest(), wanted.batch_size)
    except (GatewayRefused, GatewayUnreachable) as error:
        print(f"stopped: {error}", file=sys.stderr)
        if isinstance(error, GatewayRefused) and error.problem.get("code") == "idempotency_key_reused":
            print("This file was posted before with another --batch-size: take the same one.", file=sys.stderr)
        return 1


def _post_and_compare(sign_in: SignIn, changes: list[SampleChange], file_hash: str, batch_size: int) -> int:
    client = GatewayClient(sign_in)
    merchant_ids = ensure_merchants(client, {change.merchant_code for change in changes})
    posted = post_changes(
        client, changes, merchant_ids, file_hash=file_hash, batch_size=batch_size, on_batch=_progress_of(len(changes))
    )
    print(f"{posted.entries} changes in {posted.batches} batches, {posted.replayed} of them posted before")
    file = summarize(changes)
    gateway = summary_of_gateway(lambda: GatewayClient(sign_in), (change.user_id for change in changes))
    print("\n".join(table_of(file, gateway)))
    is_equal = file == gateway
    print("The gateway's summary equals the file's." if is_equal else "The gateway's summary DIFFERS from the file's.")
    return 0 if is_equal else 1


def _progress_of(total: int) -> Callable[[Posted], None]:
    def show(posted: Posted) -> None:
        if sys.stdout.isatty():
            end = "\r" if posted.entries < total else "\r\033[K"
            print(f"{posted.entries} of {total} changes", end=end, flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
