"""What `brickyard-agent explain` and `doctor` say of an agent of a test, by its own configuration."""

from __future__ import annotations

from agent.cli.place import place_of, settings_of
from agent.diagnostics import live
from agent.diagnostics.table import examine
from tests.integration.agent.agent_process import AgentProcess


def explained(agent: AgentProcess, volume: str) -> str:
    return "\n".join(live.lines(live.explain(place_of(settings_of(agent.config, ())), volume)))


def doctor(agent: AgentProcess, *checks: str) -> str:
    """One line for each finding: its state, and what it says."""
    found = examine(place_of(settings_of(agent.config, ())), checks)
    return "\n".join(f"{one.state}: {one.message}" for one in found)
