"""The one Alembic environment for all services; their versions stand in services/<service>/migrations."""
