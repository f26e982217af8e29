"""Starts the product's services as processes, keeps them running, and stops them: one small agent per module."""
