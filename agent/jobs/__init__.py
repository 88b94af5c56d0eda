"""Durable jobs: the journal, the runner, and one small handler per kind."""
