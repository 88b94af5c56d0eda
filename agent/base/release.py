"""The installed release, read when this is imported: afterwards the environment may be out of the process's reach.

The folder's name tells it; the library for such questions would stay in the memory of every service.
"""

from __future__ import annotations

import sys
from pathlib import Path

_BEFORE, _AFTER = "brickyard-", ".dist-info"


def _installed(path: list[str]) -> str:
    for folder in path:
        for found in Path(folder or ".").glob(f"{_BEFORE}*{_AFTER}"):
            return found.name.removeprefix(_BEFORE).removesuffix(_AFTER)
    return "unknown"


RELEASE = _installed(sys.path)
"""`unknown` in a tree that was never installed."""
