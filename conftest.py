"""Fixtures every member's tests share: databases, brokers, bounded waiting."""

pytest_plugins = ["lib_events.testing"]
