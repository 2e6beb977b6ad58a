"""users owns staff, roles, data permissions, sessions, second factors, API keys, signing keys and merchants.

RPC: sign_in, refresh_session, end_session, change_password, begin_totp, confirm_totp, remove_totp,
introspect_session, introspect_api_key, get_signing_keys, announce_signing_key, get_me, list_users, get_user,
create_user, update_user, disable_user, enable_user, reset_password, reset_totp, get_user_access, get_least_privilege,
list_least_privilege, shrink_user, list_permission_holders, list_my_sessions, end_my_session, list_user_sessions,
end_user_session, list_roles, get_role, create_role, update_role, delete_role, list_merchants, get_merchant,
create_merchant, update_merchant, list_api_keys, create_api_key, revoke_api_key.
Emits: what `shared/contracts/users.py` lists under events. Hears: nothing. Calls: audit, for the report of
least privilege alone; everything else needs nobody.
"""
