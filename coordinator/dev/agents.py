"""Agents of a development site. Imported by the parent while the coordinator, already forked, gets ready."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agent.base.config import load
from agent.server.identity import join
from agent.server.main import run_agent
from agent.server.settings import AgentSettings
from coordinator.dev.life import end_with_parent
from coordinator.dev.processes import Body, Report
from coordinator.dev.site import DevSite


def agent_tables() -> frozenset[str]:
    """The tables of agent.toml."""
    return frozenset(AgentSettings.model_fields)


def agent_bodies(site: DevSite, sets: list[str], tokens: Mapping[str, str]) -> dict[str, Body]:
    """What each agent's process does, by host. `tokens` is filled when the coordinator has made them."""
    return {host: _body(load(AgentSettings, site.agent_file(host), sets), tokens) for host in site.hosts}


def _body(settings: AgentSettings, tokens: Mapping[str, str]) -> Body:
    def body(life_fd: int, report: Report) -> int:
        section = settings.agent
        if not (settings.identity_dir / "certificate.pem").exists():
            settings.identity_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            joining = join(
                settings.identity_dir,
                tokens[section.host],
                section.host,
                control_port=section.port,
                data_port=section.data_port,
                address=section.address,
            )
            asyncio.run(joining)
        roots = [backend.path for backend in settings.backends.values()]
        return run_agent(settings, roots=roots, dev=True, on_ready=lambda: end_with_parent(life_fd))

    return body
