"""A card's timeline: everything that happened to it, in one list, written in the transaction in which it happened."""
