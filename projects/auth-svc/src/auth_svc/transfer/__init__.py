"""Everything as one document, out and in."""
