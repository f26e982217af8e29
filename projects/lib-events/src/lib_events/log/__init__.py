"""The event log in use: read on from a place, followed live, told as server-sent events, pruned."""
