"""What telegram can do, a noun a file. Each function takes a session and plain values, and never talks to Telegram."""
