"""Alembic revisions of the workflow engine's tables."""
