"""Files that a file back end does not manage: the folder `unmanaged`, from which they are adopted by a rename.

An operator puts raw files there; what is released comes back there as `volume-ID`, or `volume-ID.snapshot-ID`. All
calls block; names come from outside and are checked here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from agent.backends.abilities import Foreign
from agent.backends.errors import NotAdoptable, VolumeNotFound
from agent.backends.folder import Folder
from agent.host import sysfs

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_SNAPSHOT = re.compile(r"(?P<source>.+)\.snapshot-[A-Za-z0-9_-]+")


def released_name(kind: str, old_id: str, source: str) -> str:
    """What something is called once it is not managed any more."""
    return f"volume-{old_id}" if kind == "volume" else f"{source}.snapshot-{old_id}"


def listing(folder: Folder) -> list[Foreign]:
    """All that lies there, with what speaks against each."""
    bound = {loop.file_name for loop in sysfs.loop_devices()}
    found = []
    for name in folder.names():
        try:
            size = os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
        snapshot = _SNAPSHOT.fullmatch(name)
        source = snapshot["source"] if snapshot is not None else ""
        reason = objection(folder, name, bound)
        found.append(Foreign("snapshot" if snapshot else "volume", name, size, reason, source))
    return found


def objection(folder: Folder, name: str, bound: set[str]) -> str:
    """Why the file can not be adopted; empty when it can."""
    if not _NAME.fullmatch(name):
        return "its name is not of letters, digits, dots, dashes and underscores"
    try:
        status = folder.status(name)
    except PermissionError:
        return "it is not a plain file"
    if status is None:
        return "it is gone"
    if status.st_nlink != 1:
        return "it has other hard links"
    if status.st_size == 0:
        return "it is empty"
    if status.st_size % 512:
        return "its size is not a whole number of sectors"
    if not os.access(name, os.R_OK | os.W_OK, dir_fd=folder.fd, follow_symlinks=False):
        return "the agent's user may not write to it"
    return "it is in use by a loop device" if name in bound else ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be adopted, of the size that was seen when it was chosen."""

    name: str
    size: int


def adopt(folder: Folder, chosen: Chosen, to: Folder, new_id: str, backend: str) -> None:
    """Rename it into `to`. Raises NotAdoptable, VolumeNotFound."""
    name = chosen.name
    if not _NAME.fullmatch(name) or folder.status(name) is None:
        raise VolumeNotFound(noun="Unmanaged file", id=name[:64], backend=backend)
    reason = objection(folder, name, {loop.file_name for loop in sysfs.loop_devices()})
    size = folder.size(name)
    if not reason and size != chosen.size:
        reason = f"it has {size} bytes now, and had {chosen.size} when it was chosen"
    if reason:
        raise NotAdoptable(name=name, backend=backend, reason=reason)
    with folder.opened(name, os.O_RDWR) as fd:
        os.fchmod(fd, 0o600)
        os.fsync(fd)
    os.rename(name, new_id, src_dir_fd=folder.fd, dst_dir_fd=to.fd)
    to.sync()
    folder.sync()


def release(of: Folder, old_id: str, folder: Folder, name: str, backend: str) -> int | None:
    """Rename it out of `of`; returns its size, None when that was done before. Raises VolumeNotFound, NotAdoptable."""
    size = of.size(old_id)
    if size is None:
        if folder.status(name) is None:
            raise VolumeNotFound(noun="Volume", id=old_id, backend=backend)
        return None
    if folder.status(name) is not None:
        raise NotAdoptable(name=name, backend=backend, reason="a file of that name lies among the unmanaged ones")
    os.rename(old_id, name, src_dir_fd=of.fd, dst_dir_fd=folder.fd)
    folder.sync()
    of.sync()
    return size
