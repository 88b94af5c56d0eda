"""Is there room?"""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent.base.terminal.sizes import size
from agent.diagnostics.finding import Finding, bad, ok, warning
from agent.diagnostics.place import Place

_LITTLE, _NONE = 0.10, 0.02


def check(place: Place) -> Iterator[Finding]:
    folders = {"state directory": place.state_dir, "spool": place.spool_dir}
    folders |= {f"back end {name}": path for name, path in place.backends.items()}
    if place.images_dir is not None:
        folders["image store"] = place.images_dir
    seen: set[int] = set()
    for name, path in folders.items():
        if not path.is_dir() or (device := path.stat().st_dev) in seen:
            continue
        seen.add(device)
        stats = os.statvfs(path)
        share = stats.f_bavail / max(stats.f_blocks, 1)
        words = f"The file system of the {name} {path} has {size(stats.f_bavail * stats.f_frsize)} free ({share:.0%})."
        remedy = "Delete what is not needed, or make the file system larger."
        yield ok("space", words) if share > _LITTLE else (warning if share > _NONE else bad)("space", words, remedy)
        if stats.f_files and stats.f_favail / stats.f_files < _NONE:
            yield bad("space", f"The file system of the {name} {path} has hardly an inode free.", remedy)
