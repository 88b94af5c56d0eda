"""The table of outside programs that this project runs, and where they may lie.

`run` starts nothing that has no row here. Programs are looked up in fixed folders, never along `$PATH`, so that
neither an environment nor a writable folder decides what runs. `missing()` is what `doctor` prints.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from agent.host.errors import ToolMissing

FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True, slots=True)
class Tool:
    """One outside program: its name, the Debian package that brings it, and what it is used for."""

    name: str
    package: str
    purpose: str


_rows = (
    Tool("setpriv", "util-linux", "ties the life of every tool to the life of the agent"),
    Tool("flock", "util-linux", "waits for a lock that a tool of an earlier job still holds"),
    Tool("cryptsetup", "cryptsetup-bin", "makes and checks LUKS headers"),
)
_table: dict[str, Tool] = {tool.name: tool for tool in _rows}


def declare(*rows: Tool) -> None:
    """Add programs to the table; the same name twice must be the same row."""
    for row in rows:
        if _table.setdefault(row.name, row) != row:
            raise ValueError(f"tool {row.name!r} has a row already")


def known() -> tuple[Tool, ...]:
    """Every row of the table."""
    return tuple(_table.values())


def find(name: str) -> str:
    """The absolute path of a program of the table; `ToolMissing` when it is not installed or has no row."""
    tool = _table.get(name)
    if tool is None:
        raise ToolMissing(tool=name, folders="the table of tools", package="that brings it, and add it to that table")
    path = _locate(name)
    if path is None:
        _locate.cache_clear()
        raise ToolMissing(tool=name, folders=", ".join(FOLDERS), package=tool.package)
    return path


def missing(names: Iterable[str] | None = None) -> list[Tool]:
    """The rows (all, or those named) whose program is not installed."""
    _locate.cache_clear()
    rows = _table.values() if names is None else [_table[name] for name in names]
    return [row for row in rows if _locate(row.name) is None]


@cache
def _locate(name: str) -> str | None:
    for folder in FOLDERS:
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    return None
