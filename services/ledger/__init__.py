"""The ledger owns accounts, entries and the sums of them; every change of a balance is an entry.

RPC: post_balance_change, post_balance_changes, list_balance_types, list_balance_logs, summarize_balance_logs,
list_accounts, list_user_accounts, read_trial_balance, verify_ledger. Calls: users.get_merchant.
Emits: BalancesChanged, LargeChangeDetected, LedgerVerified.
Hears: settings.ParameterChanged, users.MerchantCreated, users.MerchantUpdated.
"""
