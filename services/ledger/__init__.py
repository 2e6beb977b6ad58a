"""The ledger owns accounts, entries, their sums, orders, channels, what became of cards' transfers: money is entries.

RPC: post_balance_change, post_balance_changes, list_balance_types, list_balance_logs, summarize_balance_logs,
list_accounts, list_user_accounts, read_trial_balance, verify_ledger, create_order, settle_order, fail_order,
refund_order, get_order, list_orders, transfer_card_money, find_card_account,
list_card_balance_logs,
archive_entries, list_archives, get_archive, verify_archive, list_archived_entries,
create_channel, update_channel, list_channels, get_channel, receive_callback,
get_channel_key_usage, tell_channel_keys_changed,
sync_order_statuses, list_upstream_answers,
begin_statement, add_statement_chunk, finish_statement, abandon_statement, list_statements, get_statement,
list_statement_records,
read_daily_checks, list_daily_check_rows, read_monthly_figures, close_day, list_closed_days,
create_reconciliation, reconcile_day, list_reconciliations, get_reconciliation, compare_reconciliations,
list_mismatches, list_mismatch_groups, get_mismatch, reconcile_mismatch, ignore_mismatch, reopen_mismatch,
act_on_mismatches, preview_correction, correct_mismatch, approve_correction, reject_correction, reverse_correction,
list_corrections, get_correction,
explain_balance, explain_change, explain_refusal, explain_fee.
Calls: users.get_merchant.
Emits: BalancesChanged, LargeChangeDetected, LedgerVerified, OrderCreated, OrderSettled, OrderFailed, OrderRefunded,
EntriesArchived, ChannelCreated, ChannelUpdated, UpstreamReported, UpstreamMessagesForgotten, ChannelKeysChanged,
StatementImported, StatementRefused, ReconciliationFinished, MismatchFound, MismatchesFound, MismatchHealed,
MismatchesHealed, DayClosed, MismatchReconciled, MismatchIgnored, MismatchReopened, CorrectionProposed,
CorrectionApproved, CorrectionRejected, CorrectionApplied, CorrectionReversed.
Hears: settings.ParameterChanged, users.MerchantCreated, users.MerchantUpdated.
"""
