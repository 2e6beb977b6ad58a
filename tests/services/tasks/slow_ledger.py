"""A ledger that takes its time over `verify_ledger` and writes down who asked, for the tests of processes."""

import os
import time
from pathlib import Path
from typing import Any

from shared.database import Database
from shared.passport import Passport
from shared.rpc.entrypoints import rpc


class SlowLedger:
    """Stands where the ledger stands on the bus."""

    name = "ledger"
    database = Database()

    @rpc("ledger:read", is_repeatable=True)
    def verify_ledger(self, passport: Passport, *, mode: str) -> dict[str, Any]:
        """Answer that all is well, after as long as the file says."""
        folder = Path(os.environ["LEDGER_FOLDER"])
        with (folder / "asked").open("a") as asked:
            asked.write(f"{passport.request_id}\n")
        time.sleep(float((folder / "seconds").read_text()))
        return {
            "ok": True,
            "accounts": 3,
            "entries": 9,
            "faults": [],
            "fault_count": 0,
            "mode": mode,
            "verified_at": "",
        }
