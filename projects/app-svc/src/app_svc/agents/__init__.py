"""Workflows as tools for agents: a Model Context Protocol server beside REST, over the same commands."""
