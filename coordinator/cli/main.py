"""`brickyard`: everything that a person does with a site, over its API."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from agent.base import environment
from agent.base.terminal.entry import run
from agent.base.terminal.group import LazyGroup

NOUNS = "coordinator.cli.nouns"
COMMANDS = {
    "volume": (f"{NOUNS}.volume:volume", "Volumes."),
    "snapshot": (f"{NOUNS}.snapshot:snapshot", "Snapshots of volumes."),
    "type": (f"{NOUNS}.type:type_group", "Volume types, and how their volumes are encrypted."),
    "attachment": (f"{NOUNS}.attachment:attachment", "Attachments of volumes to hosts."),
    "image": (f"{NOUNS}.image:image", "Images that volumes are made of."),
    "key": (f"{NOUNS}.key:key", "Secrets that volumes and images are encrypted with."),
    "host": (f"{NOUNS}.host:host", "Hosts of the fleet."),
    "operation": (f"{NOUNS}.operation:operation", "The durable work on resources."),
    "event": (f"{NOUNS}.event:event", "What happened, in order."),
    "issue": (f"{NOUNS}.site:issue", "What is not as it should be, with a remedy."),
    "message": (f"{NOUNS}.site:message", "Why something that you asked for did not come about."),
    "site": (f"{NOUNS}.whole:site", "The site as a whole."),
    "service": (f"{NOUNS}.service:service", "The services of the site."),
    "quota": (f"{NOUNS}.site:quota", "What a project may use."),
    "user": (f"{NOUNS}.user:user", "Users."),
    "project": (f"{NOUNS}.project:project", "Projects."),
    "role": (f"{NOUNS}.role:role", "Roles, and who has which where."),
    "dev": ("coordinator.cli.dev:dev", "Run a whole site in the foreground, on embedded defaults."),
    "completion": ("agent.base.terminal.completion:completion", "Print the completion script of a shell."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
@click.version_option(package_name="brickyard")
@click.option("--openrc", type=click.Path(path_type=Path), help="File that exports the OS_* variables.")
def cli(openrc: Path | None) -> None:
    """Brickyard: volumes on a fleet of hosts.

    The site is named by the usual OS_* variables; `brickyard dev` writes a file that sets them.
    """


def main() -> NoReturn:
    """The console command."""
    try:
        environment.check()
    except environment.ForeignPackage as error:
        click.echo(f"Error: {error}\n{error.remedy}", err=True)
        raise SystemExit(error.exit_code) from None
    run(cli, "brickyard")
