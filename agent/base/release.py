"""The installed release, read when this is imported: afterwards the environment may be out of the process's reach."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("brickyard")
    except PackageNotFoundError:
        return "unknown"


RELEASE = _installed()
"""`unknown` in a tree that was never installed."""
