"""The Alembic environment; `db.migration` is the way in."""
