"""The process of the coordinator in a development site."""

from __future__ import annotations

import asyncio
import os

from agent.base.config import load
from agent.privsep import account as accounts
from agent.privsep.preload import environment_paths, modules_of, preload
from coordinator.dev.child import Parent
from coordinator.dev.site import DevSite
from coordinator.server.main import run_coordinator
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.wiring import Coordinator

# Loaded before root is given up, with all modules of the coordinator, where the environment would be out of reach then.
_LATE = (
    "cryptography.hazmat.backends.openssl", "cryptography.hazmat.primitives.ciphers.aead", "oslo_policy.policy",
    "oslo_config.cfg", "yaml",
)  # fmt: skip
_ELSEWHERE = ("coordinator.cli", "coordinator.dev", "coordinator.state.migrations")


def run(site: DevSite, name: str, sets: tuple[str, ...], parent: Parent) -> int:
    """Serve, as an ordinary user; make the tokens of the agents and tell when the first volume can be made."""
    settings = load(CoordinatorSettings, site.coordinator_file, sets)
    if os.geteuid() == 0:
        account = accounts.choose(dev=True)
        _give(settings, account)
        if not accounts.reads_all(account, environment_paths()):
            preload([*modules_of("coordinator", but=_ELSEWHERE), *_LATE])
        accounts.drop(account, settings.state_dir)

    def on_ready(coordinator: Coordinator) -> None:
        parent.follow()
        announcing = asyncio.get_running_loop().create_task(_announce(coordinator, site, parent))
        coordinator.background.add(announcing)

    return run_coordinator(settings, on_ready)


async def _announce(coordinator: Coordinator, site: DevSite, parent: Parent) -> None:
    section = coordinator.settings.enrolment
    for host in site.hosts:
        token = await coordinator.enrolment.token(
            section.address or section.listen, coordinator.listener.port, host=host
        )
        parent.tell("token", host, token.line())
    scheme = "https" if coordinator.settings.api.tls else "http"
    endpoint = f"{scheme}://{site.address}:{coordinator.port}"
    password = (coordinator.settings.state_dir / "admin-password").read_text().strip()
    parent.tell("openrc", site.openrc_text(endpoint, password))
    parent.tell("greet", *_greeting(site, endpoint))
    await coordinator.directory.all_up(frozenset(site.hosts))
    parent.tell("say", "ready")


def _greeting(site: DevSite, endpoint: str) -> list[str]:
    return [
        f"Block Storage API: {endpoint}/v3   (state in {site.folder})",
        "Try, in another terminal:",
        f"  . {site.openrc}",
        "  openstack volume create --size 1 first",
        "  openstack volume list",
    ]


def _give(settings: CoordinatorSettings, account: accounts.Account) -> None:
    """Make the coordinator's state directory and give it to the user that it becomes."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(settings.state_dir, account.uid, account.gid)
