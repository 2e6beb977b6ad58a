"""The devices of cards: bound to them within limits, blocked, listened for, and what they log."""
