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

# Loaded before root is given up, where the environment would be out of reach then: ours, and what those load late.
_OURS = ("coordinator", "agent.base", "agent.luks", "agent.wire")
_LATE = (
    "cryptography.hazmat.backends.openssl", "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.kdf.argon2", "oslo_policy.policy",
    "oslo_config.cfg", "prometheus_client.core", "yaml",
)  # fmt: skip
_FOR_POSTGRESQL = ("psycopg", "sqlalchemy.dialects.postgresql.psycopg")
_FOR_MESSAGES = ("oslo_messaging", "oslo_service.backend")
_ELSEWHERE = ("coordinator.cli", "coordinator.dev", "coordinator.state.migrations")


def run(site: DevSite, name: str, sets: tuple[str, ...], parent: Parent) -> int:
    """Serve, as an ordinary user; make the tokens of the agents and tell when the first volume can be made."""
    settings = load(CoordinatorSettings, site.coordinator_file, sets)
    if os.geteuid() == 0:
        account = accounts.choose(dev=True)
        _give(settings, account)
        if not accounts.reads_all(account, environment_paths()):
            preload(late_modules(settings))
        accounts.drop(account, settings.state_dir)

    def on_ready(coordinator: Coordinator) -> None:
        parent.follow()
        announcing = asyncio.get_running_loop().create_task(_announce(coordinator, site, parent))
        coordinator.background.add(announcing)

    return run_coordinator(settings, on_ready)


def late_modules(settings: CoordinatorSettings) -> list[str]:
    """All that the coordinator might load while it serves."""
    ours = [name for package in _OURS for name in modules_of(package, but=_ELSEWHERE)]
    database = _FOR_POSTGRESQL if settings.state.url is not None else ()
    bus = _FOR_MESSAGES if settings.notifications.messaging is not None else ()
    return [*ours, *_LATE, *database, *bus]


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
