"""Durable jobs: the journal, the runner, and one small handler per kind."""

from agent.base import lean_libraries

lean_libraries.load_journal()
