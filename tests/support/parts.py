"""What the forked processes of a test site do: a coordinator, or an agent, as `brickyard dev` would run them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import agent.connectors.local
import agent.images.volume
import agent.luks.blank
import agent.wire.transfer  # noqa: F401
from agent.base import faults
from agent.base.config import load
from agent.base.reload import settled
from agent.privsep import account as accounts
from agent.server.identity import join, keys
from agent.server.main import run_agent
from agent.server.settings import AgentSettings
from coordinator.server.main import run_coordinator
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.wiring import Coordinator

Request = dict[str, Any]


def run_part(request: Request, ready: int) -> int:
    """`ready` is a pipe: one line of JSON when it serves, one for each fault that was armed while it runs."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if request.get("environ"):
        os.environ.update(request["environ"])

    def arm(*_: object) -> None:
        wanted = json.loads(Path(request["control"]).read_text())
        record = wanted.get("record")
        faults.arm(wanted.get("fault"), Path(record) if record else None)
        say(ready, {"armed": wanted})

    signal.signal(signal.SIGUSR1, arm)
    part = _coordinator if request["part"] == "coordinator" else _agent
    return part(request, ready)


def say(ready: int, message: dict[str, Any]) -> None:
    os.write(ready, json.dumps(message).encode() + b"\n")


def _coordinator(request: Request, ready: int) -> int:
    config = Path(request["config"])
    settings = load(CoordinatorSettings, config, request["sets"])
    if os.geteuid() == 0:
        account = accounts.choose(dev=True)
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(settings.state_dir, account.uid, account.gid)
        accounts.drop(account, settings.state_dir)

    def on_ready(coordinator: Coordinator) -> None:
        task = asyncio.get_running_loop().create_task(_serving(coordinator, request["hosts"], ready))
        coordinator.background.add(task)

    def read() -> CoordinatorSettings:
        return load(CoordinatorSettings, config, request["sets"])

    return run_coordinator(settings, on_ready, reread=lambda: settled(read, config))


async def _serving(coordinator: Coordinator, hosts: list[str], ready: int) -> None:
    section = coordinator.settings.enrolment
    known = {one.host.name for one in coordinator.directory.all()}
    tokens = {}
    for host in sorted(set(hosts) - known):
        token = await coordinator.enrolment.token(section.listen, coordinator.listener.port, host=host)
        tokens[host] = token.line()
    say(ready, {"port": coordinator.port, "tokens": tokens})
    await coordinator.directory.all_up(frozenset(hosts))
    say(ready, {"up": sorted(hosts)})


def _agent(request: Request, ready: int) -> int:
    config = Path(request["config"])
    settings = load(AgentSettings, config, request["sets"])
    section = settings.agent
    if not (settings.identity_dir / "certificate.pem").exists():
        settings.identity_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        joining = join(
            settings.identity_dir, request["token"], section.host, control_port=request.get("reach", section.port),
            data_port=section.data_port, address=section.address,
        )  # fmt: skip
        asyncio.run(joining)
        keys.close()
    roots = [*settings.roots, *settings.work_dirs.values()]
    return run_agent(
        settings, roots=roots, dev=True, on_ready=lambda: say(ready, {"serves": section.host}),
        reread=lambda: settled(lambda: load(AgentSettings, config, request["sets"]), config),
    )  # fmt: skip
