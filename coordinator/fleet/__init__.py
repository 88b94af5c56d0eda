"""Polling hosts, knowing who can be reached, and comparing the three truths."""
