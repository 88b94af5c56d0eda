"""`config check` and `config reference`."""

from __future__ import annotations

from pathlib import Path

import click

from agent.base.config import load
from agent.base.terminal.config import config_options
from coordinator.server.settings import DEFAULT_CONFIG, CoordinatorSettings


@click.group()
def config() -> None:
    """The coordinator's configuration."""


@config.command()
@config_options(DEFAULT_CONFIG)
def check(config: Path | None, sets: tuple[str, ...]) -> None:
    """Check the configuration; each problem is told with file, line, key and remedy."""
    load(CoordinatorSettings, config, sets)
    click.echo(f"{config or 'The built-in defaults'}: no problem found.")


@config.command()
def reference() -> None:
    """Print every key with type, default and meaning, in Markdown."""
    from agent.base.configdoc import markdown

    click.echo(markdown(CoordinatorSettings), nl=False)
