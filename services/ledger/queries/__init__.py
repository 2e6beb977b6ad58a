"""What the ledger can be asked, a noun each."""
