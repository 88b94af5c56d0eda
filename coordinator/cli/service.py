"""`brickyard-coordinator`: the service, and what is done on its state directory without the API."""

from __future__ import annotations

from pathlib import Path

import click

from agent.base.terminal.config import config_options
from agent.base.terminal.group import LazyGroup
from coordinator.cli.paths import DEFAULT_CONFIG

COMMANDS = {
    "serve": ("coordinator.cli.service:serve", "Run the coordinator in the foreground."),
    "config": ("coordinator.cli.offline.config:config", "Check the configuration; print its reference."),
    "db": ("coordinator.cli.offline.db:db", "Check, back up, restore, move, purge or upgrade the state database."),
    "key": (
        "coordinator.cli.offline.key:key",
        "Replace the key-encryption key; move keys to another key manager.",
    ),
    "identity": ("coordinator.cli.offline.identity:identity", "Export and import users, projects and roles."),
    "quota": ("coordinator.cli.offline.quota:quota", "Change how usage is counted; check and renew kept sums."),
    "host": ("coordinator.cli.offline.host:host", "Make join tokens and bundles for hosts."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
@click.version_option(package_name="brickyard")
def service() -> None:
    """The coordinator of a site: its service, and its state directory."""


@click.command()
@config_options(DEFAULT_CONFIG)
def serve(config: Path | None, sets: tuple[str, ...]) -> int:
    """Run the coordinator in the foreground, until Ctrl-C or SIGTERM."""
    from agent.base import lean

    lean.prepare()
    from agent.base.config import load
    from agent.base.reload import settled
    from coordinator.server.main import run_coordinator
    from coordinator.server.settings import CoordinatorSettings

    def read() -> CoordinatorSettings:
        return load(CoordinatorSettings, config, sets)

    return run_coordinator(read(), reread=lambda: settled(read, config))
