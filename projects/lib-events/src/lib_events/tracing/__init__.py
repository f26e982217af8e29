"""Traces: what a span is, and the way of spans to a collector."""
