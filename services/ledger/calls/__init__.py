"""What others may call, a noun each: `service.LedgerService` is all of them together."""
