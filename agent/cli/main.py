"""`brickyard-agent`: everything that a person does on a host."""

from __future__ import annotations

from typing import NoReturn

import click

from agent.base import environment
from agent.base.terminal.entry import run
from agent.base.terminal.group import LazyGroup

COMMANDS = {
    "serve": ("agent.cli.service:serve", "Run the agent in the foreground."),
    "join": ("agent.cli.service:join", "Enrol this host with a one-time token or a bundle."),
    "doctor": ("agent.cli.look:doctor", "Check this host; each finding comes with a remedy."),
    "facts": ("agent.cli.look:facts", "Show what this host is, and how others reach it."),
    "connector": ("agent.cli.look:connector", "Show what to tell a Block Storage API of this host."),
    "jobs": ("agent.cli.look:jobs", "List the jobs of this host."),
    "attachments": ("agent.cli.look:attachments", "List what is attached here."),
    "explain": ("agent.cli.look:explain", "Show where a volume is: files, devices, holders."),
    "luks": ("agent.cli.luks:luks", "Look at, save and change the LUKS header of a volume."),
    "support-bundle": ("agent.cli.look:support_bundle", "Write what support needs, without secrets."),
    "config": ("agent.cli.config:config", "Check the configuration; print its reference."),
    "completion": ("agent.base.terminal.completion:completion", "Print the completion script of a shell."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
@click.version_option(package_name="brickyard")
def cli() -> None:
    """Brickyard on this host: the agent, and what it does here."""


def main() -> NoReturn:
    """The console command."""
    try:
        environment.check()
    except environment.ForeignPackage as error:
        raise SystemExit(_refused(error)) from None
    run(cli, "brickyard-agent")


def _refused(error: environment.ForeignPackage) -> int:
    click.echo(f"Error: {error}\n{error.remedy}", err=True)
    return error.exit_code
