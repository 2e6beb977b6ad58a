"""What the ledger can do, a noun each."""
