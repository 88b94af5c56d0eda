"""Durable jobs: the journal, the runner, and one small handler per kind."""

from agent.base import lean

lean.load_without("sqlite_utils", "numpy")  # 20 MiB, to store numbers of a kind that no journal has
