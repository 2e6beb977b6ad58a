"""The rules of cards, without a database: what a number is, and which state follows which."""
