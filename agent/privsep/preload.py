"""Loading what would be out of reach once root is given up, where the environment lies below a root-only folder."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.base import put_off


def preload(modules: Sequence[str]) -> None:
    """Import what would be out of reach after the drop, when the environment lies below a root-only folder."""
    put_off.load_seldom()
    for name in modules:
        with suppress(ImportError):  # a library that is not installed is missed where it is used
            __import__(name)


def modules_of(package: str, *, but: Sequence[str] = ()) -> list[str]:
    """All modules of an installed package, but those below some of its folders."""
    import pkgutil

    found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    return [each.name for each in found if not each.name.startswith(tuple(but))]


def environment_paths() -> tuple[Path, ...]:
    """The folders that a late import reads."""
    return (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parent, Path(os.__file__).parent)
