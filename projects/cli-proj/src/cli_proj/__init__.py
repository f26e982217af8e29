"""CLI: the evs command; the same work from a terminal, and the one command that starts everything."""
