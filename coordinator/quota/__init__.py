"""Limits, and usage counted from live rows in the same transaction that spends."""
