"""Cards: virtual cards, their numbers (encrypted), their states, and which merchant held them when.

Owns: cards, card_assignments.
RPC: list_cards, search_card, get_card, create_card, update_card, activate_card, freeze_card, unfreeze_card,
close_card, assign_card, assign_cards, list_assignments, reveal_card.
Emits: CardCreated, CardUpdated, CardActivated, CardFrozen, CardUnfrozen, CardClosed, CardAssigned, CardRevealed.
Hears: what the kernel's copy of merchants hears.
"""
