"""A card's money: transfers between the merchant's account and the card's, both kept by the ledger.

A transfer is written down first, then asked of the ledger under its own id, then its outcome is written down. See
docs/decisions/0016-a-transfer-is-written-down-before-it-is-asked-for.md.
"""
