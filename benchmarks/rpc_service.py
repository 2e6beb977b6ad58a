"""The service that the RPC benchmark calls: it does nothing, with and without a transaction."""

from sqlalchemy.orm import Session

from shared.database import Database
from shared.passport import Passport
from shared.rpc.entrypoints import command, rpc


class RpcProbeService:
    """Does nothing."""

    name = "rpc_probe"

    database = Database()

    @rpc(None, is_repeatable=True)
    def noop(self, passport: Passport) -> int:
        """Answer at once."""
        return 1

    @command(None)
    def noop_command(self, session: Session, passport: Passport) -> int:
        """Answer from within a transaction, under an idempotency key."""
        return 1
