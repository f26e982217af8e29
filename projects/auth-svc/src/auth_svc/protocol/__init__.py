"""Load, decide, commit: requests become decisions over rows, and decisions become effects."""
