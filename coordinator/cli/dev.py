"""`brickyard dev`."""

from __future__ import annotations

from pathlib import Path

import click

from agent.base.terminal.config import set_option


@click.command()
@click.option("--state-dir", type=click.Path(path_type=Path), help="Folder of the site; default: one of your own.")
@click.option("--port", type=click.IntRange(0, 65535), default=8776, show_default=True, help="Port of the API.")
@click.option("--agents", type=click.IntRange(1, 64), default=1, show_default=True, help="Hosts to simulate.")
@set_option
def dev(state_dir: Path | None, port: int, agents: int, sets: tuple[str, ...]) -> None:
    """Run a whole site in the foreground: a coordinator and its agents, each as a process of its own.

    STATE_DIR/openrc holds the exports for the clients. Ctrl-C stops everything.
    """
    from coordinator.dev.site import DevSite, default_folder

    DevSite(folder=(state_dir or default_folder()).absolute(), port=port, agents=agents).run(sets)
