"""The versions of the tables of the built-in workflows."""
