"""Durable workflows: ordinary async functions that survive crashes."""
