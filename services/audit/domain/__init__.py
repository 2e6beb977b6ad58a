"""The pure rules of the audit log: what an event says (`rows`), and what proves that nobody touched it (`chain`)."""
