"""What the kernel says about volumes and attachments, from sysfs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.base.errors import NotFound
from agent.base.ids import checked_id
from agent.base.terminal.sizes import size
from agent.diagnostics import journal, transports
from agent.diagnostics.place import Place
from agent.diagnostics.transports import node as _node
from agent.host import sysfs
from agent.host.lvm import ATTACHED_PREFIX


class VolumeUnknown(NotFound):
    code = "agent.volume-unknown"
    sentence = "No back end of this host holds a volume {id}, and nothing here was told of it."
    hint = "`brickyard volume show` names the host that it lies on."


def attachments(place: Place) -> list[dict[str, Any]]:
    """The table of attachments, each row with `state`: attached, missing or stale."""
    rows = journal.attachments(place.journal_file)
    sys = place.root / "sys"
    bound = {f"/dev/{loop.name}": loop.file_name for loop in sysfs.loop_devices(sys)}
    for row in rows:
        connection = transports.connection_of(row)
        row["protocol"] = connection.protocol if connection is not None else "local"
        if connection is not None:
            there = transports.there(row, connection, sys)
        else:
            file = Path(row["identifiers"].get("path", "")).name
            there = bool(row["raw_device"]) and bound.get(row["raw_device"]) == file
            volume = sysfs.mapper_device(ATTACHED_PREFIX + row["attachment_id"], sys)
            there = there or volume is not None
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
    tree += transports.exported(volume_id, place.root)
    for row in told:
        connection = transports.connection_of(row)
        below = [] if connection is None else transports.reached(connection, place.root / "sys")
        tree.append(_node("attachment", row["attachment_id"], f"{row['state']}, {row['mode']}, {row['device']}", below))
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
    return _node("device", f"/dev/{name}", words, transports.users(sys, name))


def lines(node: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """The tree for people."""
    about = f"  ({node['about']})" if node["about"] else ""
    yield f"{'  ' * depth}{node['kind']} {node['name']}{about}"
    for below in node["below"]:
        yield from lines(below, depth + 1)
