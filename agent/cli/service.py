"""`serve` and `join`."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

import click

from agent.base import lean
from agent.base.config import load
from agent.base.errors import Invalid
from agent.base.terminal.config import config_options
from agent.server.settings import DEFAULT_CONFIG, AgentSettings


@click.command()
@config_options(DEFAULT_CONFIG)
def serve(config: Path | None, sets: tuple[str, ...]) -> int:
    """Run the agent in the foreground, until Ctrl-C or SIGTERM."""
    lean.prepare()
    settings = load(AgentSettings, config, sets)
    from agent.base.reload import settled
    from agent.server.main import run_agent

    return run_agent(settings, reread=lambda: settled(lambda: load(AgentSettings, config, sets), config))


@click.command()
@click.argument("token", required=False)
@click.option("--bundle", type=click.Path(path_type=Path), help="Enrol from a bundle file instead of a token.")
@click.option("--name", help="Name of this host; default: agent.host of the configuration.")
@config_options(DEFAULT_CONFIG)
def join(token: str | None, bundle: Path | None, name: str | None, config: Path | None, sets: tuple[str, ...]) -> None:
    """Enrol this host with the one-time TOKEN of `brickyard host token`; `-` reads it from standard input."""
    settings = load(AgentSettings, config, sets)
    if (token is None) == (bundle is None):
        raise click.UsageError("Give either a token or --bundle FILE.")
    line = sys.stdin.readline(4096).strip() if token == "-" else token  # noqa: S105 - a dash is no secret
    if line is not None and not line:
        raise Invalid(reason="No token came on standard input.")
    joined = _enrol(settings, line, bundle, name or settings.agent.host)
    click.echo(f"This host is enrolled as {joined}. Start the agent: systemctl enable --now brickyard-agent", err=True)


def _enrol(settings: AgentSettings, token: str | None, bundle: Path | None, name: str) -> str:
    """Make the folders as the agent would, then the identity in them; returns the name."""
    from agent.privsep import account as accounts
    from agent.privsep.errors import AccountInvalid
    from agent.server import identity
    from agent.server.prepare import make_folders

    os.umask(0o077)
    account = None
    if os.geteuid() == 0:
        with suppress(AccountInvalid):  # the user may be made later; the agent takes the files over when it starts
            account = accounts.choose(settings.privsep.user)
    make_folders(settings, account)
    if bundle is not None:
        return identity.install_bundle(settings.identity_dir, bundle).name
    section = settings.agent
    ports = {"control_port": section.port, "data_port": section.data_port}
    joining = identity.join(settings.identity_dir, token or "", name, address=section.address, **ports)
    return asyncio.run(joining).name
