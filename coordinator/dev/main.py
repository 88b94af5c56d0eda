"""`brickyard dev`: a whole site in the foreground, on embedded defaults.

It imports both packages once and forks, so that all processes share that memory; it is the one place of the
coordinator's package that knows the agent's server.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.base.config import load
from agent.base.log import get_logger
from agent.privsep import account as accounts
from agent.server.identity import join
from agent.server.main import run_agent
from agent.server.settings import AgentSettings
from coordinator.dev.processes import Body, Child, Processes, Report
from coordinator.dev.site import DevSite
from coordinator.server.main import run_coordinator
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.wiring import Coordinator

log = get_logger(__name__)
Say = Callable[[str], None]


def run_dev(site: DevSite, sets: tuple[str, ...], say: Say) -> int:
    """Run until Ctrl-C or SIGTERM; returns the exit code. `sets` go to whichever part knows the key."""
    site.write()
    for_coordinator, for_agents = _split(sets)
    settings = load(CoordinatorSettings, site.coordinator_file, for_coordinator)
    agents = {host: load(AgentSettings, site.agent_file(host), for_agents) for host in site.hosts}
    tokens: dict[str, str] = {}
    processes: list[Processes] = []

    def on_report(child: Child, message: dict[str, Any]) -> None:
        if "port" in message:
            tokens.update(message["tokens"])
            endpoint = f"http://{site.address}:{message['port']}"
            first = child.name == "coordinator" and not child.deaths
            site.write_openrc(endpoint, (settings.state_dir / "admin-password").read_text().strip())
            if first:
                _greet(say, site, endpoint)
                for host in site.hosts:
                    processes[0].start(host, _agent(site, agents[host], tokens))
        elif message.get("ready"):
            say("ready")

    processes.append(Processes(on_report))
    processes[0].start("coordinator", _coordinator(settings, site.hosts))
    return processes[0].run()


def _greet(say: Say, site: DevSite, endpoint: str) -> None:
    say(f"Block Storage API: {endpoint}/v3   (state in {site.folder})")
    say("Try, in another terminal:")
    say(f"  . {site.openrc}")
    say("  openstack volume create --size 1 first")
    say("  openstack volume list")


def _split(sets: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Which part each `key=value` is for, by its first table; `log` is for both, `agent.KEY` for agents."""
    of_agents = set(AgentSettings.model_fields)
    of_coordinator = set(CoordinatorSettings.model_fields)
    both = of_agents & of_coordinator - {"testing"}
    first: list[str] = []
    second: list[str] = []
    for item in sets:
        table = item.partition("=")[0].partition(".")[0]
        if table in of_agents and (table not in of_coordinator or table in both):
            second.append(item)
        if table not in of_agents or table in of_coordinator:
            first.append(item)
    return first, second


def _coordinator(settings: CoordinatorSettings, hosts: tuple[str, ...]) -> Body:
    def body(life_fd: int, report: Report) -> int:
        if os.geteuid() == 0:
            account = accounts.choose(dev=True)
            _give(settings.state_dir, account)
            accounts.drop(account, settings.state_dir)

        def on_ready(coordinator: Coordinator) -> None:
            loop = asyncio.get_running_loop()
            loop.add_reader(life_fd, _parent_ended, loop, life_fd)
            coordinator.background.add(loop.create_task(_announce(coordinator, hosts, report)))

        return run_coordinator(settings, on_ready)

    return body


async def _announce(coordinator: Coordinator, hosts: tuple[str, ...], report: Report) -> None:
    section = coordinator.settings.enrolment
    address = section.address or section.listen
    tokens = {}
    for host in hosts:
        token = await coordinator.enrolment.token(address, coordinator.listener.port, host=host)
        tokens[host] = token.line()
    report({"port": coordinator.port, "tokens": tokens})
    await coordinator.directory.all_up(frozenset(hosts))
    report({"ready": True})


def _agent(site: DevSite, settings: AgentSettings, tokens: dict[str, str]) -> Body:
    def body(life_fd: int, report: Report) -> int:
        section = settings.agent
        if not (settings.identity_dir / "certificate.pem").exists():
            settings.identity_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            asyncio.run(
                join(
                    settings.identity_dir,
                    tokens[section.host],
                    section.host,
                    control_port=section.port,
                    data_port=section.data_port,
                    address=section.address,
                )
            )

        def on_ready() -> None:
            loop = asyncio.get_running_loop()
            loop.add_reader(life_fd, _parent_ended, loop, life_fd)

        roots = [backend.path for backend in settings.backends.values()]
        return run_agent(settings, roots=roots, dev=True, on_ready=on_ready)

    return body


def _parent_ended(loop: asyncio.AbstractEventLoop, life_fd: int) -> None:
    loop.remove_reader(life_fd)
    os.kill(os.getpid(), signal.SIGTERM)


def _give(folder: Path, account: accounts.Account) -> None:
    """Make the coordinator's state directory and give it to the user that it becomes."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(folder, account.uid, account.gid)


def say_to_terminal(line: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
