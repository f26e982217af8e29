"""Authlib's grants, each told which rows to look at and which effects to list."""
