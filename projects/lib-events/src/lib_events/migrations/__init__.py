"""Alembic revisions of the event log's tables."""
