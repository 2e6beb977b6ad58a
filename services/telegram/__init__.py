"""Telegram: merchants bound to groups, what each group is told, and a durable queue of messages to the Bot API.

Owns: bindings, large_change_rules, adjustment_rules, device_rules, notifications, pace.
RPC: list_bindings, create_binding, update_binding, delete_binding, get_rules, change_rules, send_test,
list_notifications, get_notification, retry_notification.
Emits: BindingCreated, BindingUpdated, BindingDeleted, NotificationRulesChanged, TestNotificationQueued,
NotificationRetried, NotificationSent, NotificationFailed.
Hears: ledger.BalancesChanged, cards.DeviceWentOffline, cards.DeviceCameOnline, and what the kernel's copies of
merchants and parameters hear.
"""
