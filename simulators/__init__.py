"""Stand-ins for what belongs to others, and sample data: a Telegram Bot API, a payment platform, a demonstration.

Everything here talks real HTTP and none of it is imported by a service or by the gateway.
"""
