"""Alembic revisions of the AuthService's tables."""
