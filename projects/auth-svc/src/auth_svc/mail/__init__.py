"""Mails: rows written by the transaction that causes them, sent by a loop, gone once sent."""
