"""The life of an engine process: its lease, the runs it claims and those it has in memory."""
