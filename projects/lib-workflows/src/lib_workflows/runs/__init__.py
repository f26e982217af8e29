"""A run's row: its states, the commands that change it, each one transaction, and the events that tell of it."""
