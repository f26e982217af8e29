"""Queues: who may begin, and what operators change."""
