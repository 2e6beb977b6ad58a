"""What every process speaks: a pure half (errors, money, events) and a framework half (rpc, messaging, database)."""
