"""Are there half-made files that nothing needs?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from agent.base.terminal.sizes import duration, size
from agent.diagnostics import journal
from agent.diagnostics.finding import Finding, ok, warning
from agent.diagnostics.place import Place

_AGE_S = 3600.0
_REMEDY = "If no operation of the coordinator needs it (brickyard operation list --active), remove the file."


def check(place: Place) -> Iterator[Finding]:
    live = journal.jobs(place.journal_file, ended=False) if place.journal_file.exists() else []
    needed = json.dumps([job["args"] for job in live])
    folders = [folder / "partial" for folder in place.backends.values()]
    folders += [place.spool_dir, *([place.images_dir / "incoming"] if place.images_dir else [])]
    found = [path for folder in folders for path in _old(folder) if path.name.split(".")[0] not in needed]
    for path in found:
        status = path.stat()
        words = f"{size(status.st_blocks * 512)}, {duration(time.time() - status.st_mtime)} old"
        yield warning("leftovers", f"{path} ({words}) belongs to no job of this host.", _REMEDY)
    if not found:
        yield ok("leftovers", "No half-made file is left over.")


def _old(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    before = time.time() - _AGE_S
    return [path for path in sorted(folder.iterdir()) if path.is_file() and path.lstat().st_mtime < before]
