"""What stands behind the database's port: SQLite and PostgreSQL, their group commit and their migrations."""
