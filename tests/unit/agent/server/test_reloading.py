"""A reload that would leave an agent without back ends changes nothing: so reads a file that was just emptied."""

from __future__ import annotations

from pathlib import Path

from agent.server.settings import AgentSettings
from agent.server.wiring import Agent


def settings(*names: str, folder: Path) -> AgentSettings:
    return AgentSettings.model_validate(
        {"agent": {"state_dir": folder}, "backends": {name: {"path": folder / name} for name in names}}
    )


async def test_no_back_end_left_is_refused_and_said(tmp_path: Path) -> None:
    agent = Agent(settings("one", "two", folder=tmp_path))
    await agent.backends.follow(agent.settings.backends)
    try:

        async def emptied() -> AgentSettings:
            return settings(folder=tmp_path)

        async def fewer() -> AgentSettings:
            return settings("two", folder=tmp_path)

        await agent.reload(emptied)
        assert "names no back end any more; this agent serves one, two" in agent.refused
        assert (set(agent.settings.backends), agent.backends.configured) == ({"one", "two"}, ("one", "two"))
        await agent.reload(fewer)
        assert (agent.refused, agent.backends.configured) == ("", ("two",))
    finally:
        agent.backends.close()
