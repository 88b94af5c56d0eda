"""The process of an agent in a development site."""

from __future__ import annotations

import asyncio

from agent.base.config import load
from agent.server.identity import join, keys
from agent.server.main import run_agent
from agent.server.settings import AgentSettings
from coordinator.dev.child import Parent
from coordinator.dev.site import DevSite


def run(site: DevSite, name: str, sets: tuple[str, ...], parent: Parent) -> int:
    """Join with the token that the coordinator has made, if it has not yet, and serve."""
    settings = load(AgentSettings, site.agent_file(name), sets)
    section = settings.agent
    if not (settings.identity_dir / "certificate.pem").exists():
        settings.identity_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys.begin()
        joining = join(
            settings.identity_dir,
            parent.token(),
            section.host,
            control_port=section.port,
            data_port=section.data_port,
            address=section.address,
        )
        asyncio.run(joining)
        keys.close()  # no thread may run when the daemons are started
    roots = [*settings.roots, *settings.work_dirs.values()]
    return run_agent(settings, roots=roots, dev=True, on_ready=parent.follow)
