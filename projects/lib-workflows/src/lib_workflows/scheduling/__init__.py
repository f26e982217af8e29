"""Schedules: what is due when it is due, once."""
