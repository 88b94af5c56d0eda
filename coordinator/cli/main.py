"""`brickyard`: everything that a person does with a site, over its API."""

from __future__ import annotations

from typing import NoReturn

import click

from agent.base import environment
from agent.base.terminal.entry import run
from agent.base.terminal.group import LazyGroup

COMMANDS = {
    "dev": ("coordinator.cli.dev:dev", "Run a whole site in the foreground, on embedded defaults."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
@click.version_option(package_name="brickyard")
def cli() -> None:
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
