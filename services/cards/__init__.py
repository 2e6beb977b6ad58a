"""Cards: virtual cards, their numbers (encrypted), their states, their transfers and limits, and who held them when.

Owns: cards, card_assignments, card_transfers, devices, card_devices, device_presence, device_watch, device_logs,
device_log_keys, bin_ranges, card_events.
RPC: list_cards, search_card, get_card, create_card, update_card, activate_card, freeze_card, unfreeze_card,
close_card, assign_card, assign_cards, list_assignments, reveal_card,
top_up_card, withdraw_from_card, list_card_transfers, get_card_balance, list_card_balance_logs,
list_devices, get_device, list_card_devices, list_device_cards, list_device_logs, bind_device, update_device,
unbind_device, store_device_logs, hear_device, hear_devices, list_bins, create_bin, update_bin,
import_cards, get_key_usage, tell_keys_changed, list_card_timeline. Calls:
ledger.transfer_card_money, ledger.find_card_account, ledger.list_card_balance_logs.
Emits: CardCreated, CardUpdated, CardActivated, CardFrozen, CardUnfrozen, CardClosed, CardAssigned, CardRevealed,
CardToppedUp, CardWithdrawn, CardTransferRefused, DeviceBound, DeviceUnbound, DeviceUpdated, DeviceBlocked,
DeviceUnblocked, DeviceWentOffline, DeviceCameOnline, DeviceLogsStored, BinCreated, BinUpdated,
CardKeysChanged.
Hears: what the kernel's copies of parameters and merchants hear.
"""
