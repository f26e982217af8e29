"""Lints, types, tests, documents and builds the members of any uv workspace, and remembers what passed."""
