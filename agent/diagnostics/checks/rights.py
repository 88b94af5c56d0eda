"""Can the agent's user use its folders?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.diagnostics.finding import Finding, bad, ok, warning
from agent.diagnostics.place import Place

_SECRET = ("key.pem",)


def check(place: Place) -> Iterator[Finding]:
    owner = place.state_dir.stat().st_uid
    folders = {"state directory": place.state_dir, "spool": place.spool_dir}
    folders |= {f"back end {name}": path for name, path in place.backends.items()}
    if place.images_dir is not None:
        folders["image store"] = place.images_dir
    wrong = 0
    for name, path in folders.items():
        for finding in _folder(name, path, owner):
            wrong += 1
            yield finding
    for name in _SECRET:
        file = place.identity_dir / name
        if file.exists() and file.stat().st_mode & 0o077:
            wrong += 1
            yield bad("rights", f"Others than its owner may use {file}.", f"Run: chmod 0600 {file}; then enrol anew.")
    if not wrong:
        yield ok("rights", f"All {len(folders)} folders belong to the agent's user.")


def _folder(name: str, path: Path, owner: int) -> Iterator[Finding]:
    if not path.is_dir():
        yield warning("rights", f"The {name} {path} is not there.", "The agent makes it when it starts.")
        return
    found = path.stat()
    if found.st_uid != owner and not os.access(path, os.W_OK):
        remedy = f"Run: chown {owner} {path}"
        yield bad("rights", f"The {name} {path} belongs to uid {found.st_uid}, the agent is uid {owner}.", remedy)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield warning("rights", f"Others may write to the {name} {path}.", f"Run: chmod go-w {path}")
