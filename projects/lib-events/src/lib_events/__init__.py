"""Typed CloudEvents, the transaction they are stored in, and the way from there to every subscriber."""
