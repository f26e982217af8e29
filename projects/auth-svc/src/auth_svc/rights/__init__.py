"""What somebody may do, and where: roles, groups, permissions and the services that accept tokens."""
