"""The bounded contexts, one Nameko service and one database each; none imports another."""
