"""What the kernel says about volumes and attachments, from sysfs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.base.errors import NotFound
from agent.base.ids import checked_id
from agent.base.terminal.sizes import size
from agent.diagnostics import journal
from agent.diagnostics.place import Place
from agent.host import sysfs


class VolumeUnknown(NotFound):
    code = "agent.volume-unknown"
    sentence = "No back end of this host holds a volume {id}, and nothing here was told of it."
    hint = "`brickyard volume show` names the host that it lies on."


def attachments(place: Place) -> list[dict[str, Any]]:
    """The table of attachments, each row with `state`: attached, missing or stale."""
    rows = journal.attachments(place.journal_file)
    bound = {f"/dev/{loop.name}": loop.file_name for loop in sysfs.loop_devices(place.root / "sys")}
    for row in rows:
        there = (
            bool(row["raw_device"]) and bound.get(row["raw_device"]) == Path(row["identifiers"].get("path", "")).name
        )
        row["state"] = "stale" if not row["wanted"] else "attached" if there else "missing"
    return rows


def explain(place: Place, volume_id: str) -> dict[str, Any]:
    """A tree of `{kind, name, about, below}`: volume, files, devices, holders; attachments and jobs beside them."""
    checked_id(volume_id, "volume")
    tree: list[dict[str, Any]] = []
    for name, folder in place.backends.items():
        for part in ("volumes", "partial"):
            path = folder / part / volume_id
            if path.exists():
                tree.append(_file(place, name, path, half=part == "partial"))
    known = place.journal_file.exists()
    told = [row for row in attachments(place) if row["volume_id"] == volume_id] if known else []
    work = journal.jobs(place.journal_file) if known else []
    tree += [_node("attachment", r["attachment_id"], f"{r['state']}, {r['mode']}, {r['device']}") for r in told]
    jobs = [job for job in work if (job["args"] or {}).get("volume_id") == volume_id]
    tree += [_node("job", job["key"], f"{job['kind']}, {job['state']}") for job in jobs]
    if not tree:
        raise VolumeUnknown(id=volume_id)
    return _node("volume", volume_id, f"on {place.host}", tree)


def _file(place: Place, backend: str, path: Path, *, half: bool) -> dict[str, Any]:
    status = path.stat()
    words = f"back end {backend}, {size(status.st_size)}, {size(status.st_blocks * 512)} on disk"
    words += ", half-made" if half else ""
    sys = place.root / "sys"
    loops = [loop for loop in sysfs.loop_devices(sys) if loop.file_name == path.name]
    return _node("file", str(path), words, [_device(sys, loop.name, size(loop.size)) for loop in loops])


def _device(sys: Path, name: str, words: str) -> dict[str, Any]:
    users = sysfs.users_of(name, sys)
    below = []
    for user in users:
        holder, _, title = user.partition(" ")
        if holder.startswith("dm-"):
            below.append(_device(sys, holder, title.strip("()")))
        else:
            below.append(_node("holder", user, ""))
    return _node("device", f"/dev/{name}", words, below)


def _node(kind: str, name: str, about: str, below: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"kind": kind, "name": name, "about": about, "below": below or []}


def lines(node: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """The tree for people."""
    about = f"  ({node['about']})" if node["about"] else ""
    yield f"{'  ' * depth}{node['kind']} {node['name']}{about}"
    for below in node["below"]:
        yield from lines(below, depth + 1)
