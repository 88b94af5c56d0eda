"""`--config FILE` and `--set key=value`, the same on every command that reads a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def config_options(default: Path) -> Callable[[F], F]:
    """Adds `config: Path | None` and `sets: tuple[str, ...]`; without `--config`, the default where it exists."""

    def add(function: F) -> F:
        config = click.option(
            "--config",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help=f"Configuration file; default: {default}.",
            callback=lambda _ctx, _param, value: value or _existing(default),
        )
        return config(set_option(function))

    return add


def set_option(function: F) -> F:
    """Adds `sets: tuple[str, ...]`."""
    words = "Override a configuration key; may be given often."
    return click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help=words)(function)


def _existing(default: Path) -> Path | None:
    try:
        default.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return default
    return default
