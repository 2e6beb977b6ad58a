"""The ledger's tables, a noun each."""
