"""The pure rules of money: balance types, what a change may say, and how it becomes an entry."""
