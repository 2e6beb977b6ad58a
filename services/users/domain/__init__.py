"""The rules of users that need no database: who may grant what, when a name is locked, which password will do."""
