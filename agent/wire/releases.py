"""Which releases of the other side are spoken to: this one, the one before it, and the next."""

from __future__ import annotations

import re

OLDEST = (0, 1)
"""The one before this release, or its first; raised when a release is made, with `tests/corpus/wire`."""
_RELEASE = re.compile(r"(\d+)\.(\d+)")


def too_old(version: str, oldest: tuple[int, int] = OLDEST) -> bool:
    """Whether nothing can be agreed upon with that release any more. A tree that was never installed is no release."""
    found = _RELEASE.match(version)
    return found is not None and (int(found[1]), int(found[2])) < oldest
