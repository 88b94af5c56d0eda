"""`brickyard dev`: a whole site in the foreground, on embedded defaults.

Each package is imported once and forked, so that all processes share that memory; the agent's is loaded while the
coordinator, already forked, opens its state.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from typing import Any

from agent.base.config import load
from agent.privsep import account as accounts
from coordinator.dev.life import end_with_parent
from coordinator.dev.processes import Body, Child, Processes, Report
from coordinator.dev.site import DevSite
from coordinator.server.main import run_coordinator
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.wiring import Coordinator

Say = Callable[[str], None]
_AGENT_TABLES = frozenset({"agent", "backends", "jobs", "images", "privsep"})


def run_dev(site: DevSite, sets: tuple[str, ...], say: Say) -> int:
    """Run until Ctrl-C or SIGTERM; returns the exit code. `sets` go to the part whose table they name (`log`: both)."""
    site.write()
    for_coordinator = [item for item in sets if _table(item) not in _AGENT_TABLES]
    for_agents = [item for item in sets if _table(item) in _AGENT_TABLES | {"log"}]
    settings = load(CoordinatorSettings, site.coordinator_file, for_coordinator)
    tokens: dict[str, str] = {}
    bodies: dict[str, Body] = {}
    processes: list[Processes] = []

    def on_report(child: Child, message: dict[str, Any]) -> None:
        if "port" in message:
            tokens.update(message["tokens"])
            endpoint = f"http://{site.address}:{message['port']}"
            site.write_openrc(endpoint, (settings.state_dir / "admin-password").read_text().strip())
            if not child.deaths:
                _greet(say, site, endpoint)
                for host, body in bodies.items():
                    processes[0].start(host, body)
        elif message.get("ready"):
            say("ready")

    _settle_memory()
    processes.append(Processes(on_report))
    processes[0].start("coordinator", _coordinator(settings, site.hosts))
    from coordinator.dev.agents import agent_bodies

    bodies.update(agent_bodies(site, for_agents, tokens))
    _settle_memory()
    return processes[0].run()


def _settle_memory() -> None:
    """What is loaded now stays for good: keep the collector away from it, so that children go on sharing its pages."""
    gc.collect()
    gc.freeze()


def _table(item: str) -> str:
    return item.partition("=")[0].partition(".")[0]


def _greet(say: Say, site: DevSite, endpoint: str) -> None:
    say(f"Block Storage API: {endpoint}/v3   (state in {site.folder})")
    say("Try, in another terminal:")
    say(f"  . {site.openrc}")
    say("  openstack volume create --size 1 first")
    say("  openstack volume list")


def _coordinator(settings: CoordinatorSettings, hosts: tuple[str, ...]) -> Body:
    def body(life_fd: int, report: Report) -> int:
        if os.geteuid() == 0:
            account = accounts.choose(dev=True)
            _give(settings, account)
            accounts.drop(account, settings.state_dir)

        def on_ready(coordinator: Coordinator) -> None:
            end_with_parent(life_fd)
            announcing = asyncio.get_running_loop().create_task(_announce(coordinator, hosts, report))
            coordinator.background.add(announcing)

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


def _give(settings: CoordinatorSettings, account: accounts.Account) -> None:
    """Make the coordinator's state directory and give it to the user that it becomes."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(settings.state_dir, account.uid, account.gid)


def say_to_terminal(line: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
