"""Alembic revisions of the revocations a resource server keeps."""
