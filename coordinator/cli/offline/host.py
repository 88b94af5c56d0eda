"""`host token` and `host bundle`, without the API; a coordinator may be running."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.base.config import load
from agent.base.files import write_whole
from agent.base.ids import checked_name
from agent.base.terminal.config import config_options
from coordinator.cli.offline.site import become_owner, beside, checked
from coordinator.server.settings import DEFAULT_CONFIG, CoordinatorSettings

if TYPE_CHECKING:
    from coordinator.enrolment.service import Enrolment
    from coordinator.state.database import Database


@click.group()
def host() -> None:
    """Enrol hosts."""


@host.command()
@click.argument("name", required=False)
@click.option("--lifetime", type=click.IntRange(60, 7 * 86400), default=3600, show_default=True, help="Seconds.")
@click.option("--address", help="Address of the enrolment port as hosts reach it; default: enrolment.address.")
@config_options(DEFAULT_CONFIG)
def token(name: str | None, lifetime: int, address: str | None, config: Path | None, sets: tuple[str, ...]) -> None:
    """Print a one-time join token. With NAME it is for that host alone, and lets it be set up anew."""
    settings = load(CoordinatorSettings, config, sets)
    if name is not None:
        checked_name(name, "host")
    checked(settings)
    become_owner(settings)
    where = address or _own_address(settings)
    with beside(settings) as database:
        enrolment = _enrolment(settings, database)
        made = asyncio.run(enrolment.token(where, settings.enrolment.port, lifetime_s=lifetime, host=name))
    click.echo(made.line())


@host.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--address", required=True, help="Address at which the coordinator reaches the host.")
@click.option("--port", type=click.IntRange(1, 65535), default=8790, show_default=True, help="Its control port.")
@click.option("--data-port", type=click.IntRange(1, 65535), default=8791, show_default=True, help="Its data port.")
@config_options(DEFAULT_CONFIG)
def bundle(
    *, name: str, file: Path, address: str, port: int, data_port: int, config: Path | None, sets: tuple[str, ...]
) -> None:
    """Write key, certificate and CA for the host NAME to FILE (mode 0600); it replaces what NAME was enrolled with.

    On the host: brickyard-agent join --bundle FILE
    """
    settings = load(CoordinatorSettings, config, sets)
    checked_name(name, "host")
    checked(settings)
    with beside(settings) as database:
        made = asyncio.run(_enrolment(settings, database).bundle(name, address, port, data_port))
    write_whole(file, made.text().encode(), 0o600)
    click.echo(f"{file} enrols {name}. It holds a private key: carry it safely, remove it afterwards.", err=True)


def _enrolment(settings: CoordinatorSettings, database: Database) -> Enrolment:
    from coordinator.enrolment.authority import SiteAuthority
    from coordinator.enrolment.service import Enrolment
    from coordinator.server.start import ca_store, key_store

    return Enrolment(SiteAuthority.open(ca_store(settings, database, key_store(settings, database))), database)


def _own_address(settings: CoordinatorSettings) -> str:
    section = settings.enrolment
    wild = section.listen in {"0.0.0.0", "::"}  # noqa: S104 - a comparison
    return section.address or (socket.getfqdn() if wild else section.listen)
