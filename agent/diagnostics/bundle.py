"""A bundle for support: what the host looks like to Brickyard, without secrets, in one tar.gz of bounded size."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from agent.base.errors import BrickyardError, Conflict
from agent.base.redact import redacted, redacted_text
from agent.diagnostics import journal, live
from agent.diagnostics.place import Place
from agent.diagnostics.table import examine
from agent.host import facts, sysfs, tools

MOST_BYTES = 1 << 20
_LOG_LINES = "5000"
_PROC = ("mounts", "swaps", "meminfo", "loadavg", "filesystems", "modules")

tools.declare(tools.Tool("journalctl", "systemd", "reads the agent's log for the support bundle"))


class BundleExists(Conflict):
    code = "agent.bundle-exists"
    sentence = "{path} exists already."
    hint = "Name another file, or remove this one."


def write(place: Place, settings: dict[str, Any], path: Path) -> list[str]:
    """Write the bundle (mode 0600); returns the names of its parts. Nothing in it is larger than 1 MiB."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise BundleExists(path=str(path)) from None
    names = []
    try:
        with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as bundle:
            for name, text in parts(place, settings):
                data = _cut(text).encode("utf-8", "replace")
                member = tarfile.TarInfo(f"brickyard-support/{name}")
                member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
                bundle.addfile(member, io.BytesIO(data))
                names.append(name)
            file.flush()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return names


def parts(place: Place, settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each part, without secrets; what can not be told says why."""
    made: dict[str, Callable[[], Any]] = {
        "doctor.json": lambda: [asdict(finding) for finding in examine(place)],
        "facts.json": lambda: asdict(facts.host_facts(place.root)),
        "settings.json": lambda: settings,
        "jobs.json": lambda: journal.jobs(place.journal_file, limit=500),
        "attachments.json": lambda: live.attachments(place),
        "loop-devices.json": lambda: [asdict(loop) for loop in sysfs.loop_devices(place.root / "sys")],
        "files.json": lambda: list(_files(place)),
        "packages.json": _packages,
    }
    for name, make in made.items():
        try:
            value = redacted("", make())
        except (BrickyardError, OSError) as error:
            value = {"not_told": str(error)}
        yield name, json.dumps(value, indent=1, default=str)
    for name in _PROC:
        yield f"proc/{name}", redacted_text(sysfs.text(place.root / "proc" / name) or "")
    yield "log.txt", redacted_text(_log())


def _files(place: Place) -> Iterator[dict[str, Any]]:
    """Names, sizes and rights of our own files; never their content."""
    for folder in (place.state_dir, *place.backends.values(), *([place.images_dir] if place.images_dir else [])):
        for path in sorted(folder.glob("**/*"))[:2000]:
            status = path.lstat()
            yield {
                "path": str(path), "mode": f"{status.st_mode:o}", "uid": status.st_uid, "size": status.st_size,
                "allocated": status.st_blocks * 512, "changed": status.st_mtime,
            }  # fmt: skip


def _packages() -> dict[str, Any]:
    found = {dist.metadata["Name"]: dist.version for dist in distributions()}
    return {"python": sys.version, "packages": dict(sorted(found.items()))}


def _log() -> str:
    import asyncio

    from agent.host.run import run

    argv = ["journalctl", "--unit=brickyard-agent", "--no-pager", "--output=short-iso", f"--lines={_LOG_LINES}"]
    try:
        done = asyncio.run(run(argv, timeout=20.0, max_output=4 * MOST_BYTES))
    except BrickyardError as error:
        return f"{error}\n"
    return done.stdout.decode("utf-8", "replace")


def _cut(text: str) -> str:
    """The end of a text that is too large: what happened last matters most."""
    return text if len(text) <= MOST_BYTES // 2 else "(the beginning was left out)\n" + text[-(MOST_BYTES // 2) :]
