"""users owns staff, roles, data permissions, sessions, API keys, signing keys and merchants.

RPC: sign_in, refresh_session, end_session, change_password, introspect_session, introspect_api_key,
get_signing_keys, get_me; list/get/create/update/disable/enable_user, reset_password;
list/get/create/update/delete_role; list/get/create/update_merchant; list/create/revoke_api_key.
Emits: what `shared/contracts/users.py` lists under events. Hears: nothing; it needs nobody.
"""
