"""The files of the back end `file` and every change of them, each safe to do again after a kill at any line.

Layout: `volumes/ID`, `snapshots/ID`, `partial/ID` for what is half-made, and `unmanaged/NAME` for what others made;
the last step of making something is the rename out of `partial`. All of it blocks. Callers: `agent.backends.file`.
"""

from __future__ import annotations

import os

from agent.backends import unmanaged
from agent.backends.base import Held
from agent.backends.config import FolderConfig
from agent.backends.errors import HeldByConsumer, VolumeExists, VolumeNotFound
from agent.backends.file_space import FileSpace
from agent.backends.folder import Folder, can_reflink, open_root
from agent.backends.qemu_locks import may_resize


class FileTree:
    """Opening it makes the folders and asks the file system once for reflink."""

    def __init__(self, name: str, config: FolderConfig) -> None:
        self._name, self._shared = name, config.cluster_name is not None
        self._root_fd = open_root(config.path)
        self.volumes = Folder(self._root_fd, "volumes")
        self.snapshots = Folder(self._root_fd, "snapshots")
        self.partial = Folder(self._root_fd, "partial")
        self.unmanaged = Folder(self._root_fd, "unmanaged")
        self.reflink = can_reflink(self.partial)
        self.space = FileSpace(name, config, self._root_fd, self._scan)

    def close(self) -> None:
        for folder in (self.volumes, self.snapshots, self.partial, self.unmanaged):
            folder.close()
        os.close(self._root_fd)

    def device(self) -> int:
        """The device number of what the folders lie on."""
        return os.fstat(self._root_fd).st_dev

    def of(self, kind: str) -> Folder:
        return self.volumes if kind == "volume" else self.snapshots

    def foreign_bytes(self) -> int:
        return sum(held.device_bytes for held in self.unmanaged.held("volume"))

    def is_there(self, folder: Folder, name: str, device_bytes: int) -> bool:
        """Whether it is there in that size; VolumeExists when it is there in another one."""
        have = folder.size(name)
        if have is not None and have != device_bytes:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=have, need=device_bytes)
        if have is not None:
            # An earlier try may have been killed between the rename and this.
            folder.sync()
        return have is not None

    def create(self, name: str, device_bytes: int) -> None:
        if not self.is_there(self.volumes, name, device_bytes):
            self.begin(name, device_bytes, keep=False)
            self._rename(name, self.volumes)

    def is_locked(self, name: str) -> bool:
        """Whether QEMU has a volume's file for itself."""
        with self.volumes.opened(name, os.O_RDWR) as fd:
            return not may_resize(fd)

    def begin(self, name: str, device_bytes: int, *, keep: bool) -> bool:
        """Make a half-made file of that size; whether what an earlier try wrote was kept."""
        self.space.check(device_bytes)
        if not keep and self._shared:
            self.partial.remove(name)
        with self.partial.opened(name, os.O_RDWR | os.O_CREAT) as fd:
            have = os.fstat(fd).st_size
            if keep and have == device_bytes:
                return True
            if have:
                os.ftruncate(fd, 0)
            os.ftruncate(fd, device_bytes)
            return False

    def publish(self, name: str, to: Folder) -> None:
        """What was half-made is there from now on; raises VolumeNotFound when it is in neither place."""
        if self.partial.status(name) is None:
            if to.status(name) is None:
                raise VolumeNotFound(noun="Half-made volume", id=name, backend=self._name)
            to.sync()
            return
        with self.partial.opened(name, os.O_RDWR) as fd:
            os.fsync(fd)
        self._rename(name, to)

    def _rename(self, name: str, to: Folder) -> None:
        with self.space.changing() as promise:
            size = self.partial.size(name) or 0
            self.partial.move(name, to)
            promise(size)
        to.sync()

    def replace(self, name: str) -> None:
        """The half-made volume takes the place of the one of its name."""
        if self.partial.status(name) is not None:
            with self.partial.opened(name, os.O_RDWR) as fd:
                os.fsync(fd)
            with self.space.changing() as promise:
                size, before = self.partial.size(name) or 0, self.volumes.size(name) or 0
                self.partial.move(name, self.volumes)
                promise(size - before)
        self.volumes.sync()

    def adopt(self, kind: str, new_id: str, name: str, device_bytes: int) -> None:
        if self.is_there(self.of(kind), new_id, device_bytes):
            self.unmanaged.sync()
            return
        with self.space.changing() as promise:
            unmanaged.adopt(self.unmanaged, unmanaged.Chosen(name, device_bytes), self.of(kind), new_id, self._name)
            promise(device_bytes)

    def release(self, kind: str, old_id: str, source: str, name: str) -> str:
        name = name or unmanaged.released_name(kind, old_id, source)
        with self.space.changing() as promise:
            promise(-(unmanaged.release(self.of(kind), old_id, self.unmanaged, name, self._name) or 0))
        return name

    def extend(self, name: str, have: int, device_bytes: int) -> None:
        if device_bytes > have:
            self.space.check(device_bytes - have)
        with self.volumes.opened(name, os.O_RDWR) as fd:
            if not may_resize(fd):
                raise HeldByConsumer(id=name)
            with self.space.changing() as promise:
                os.ftruncate(fd, device_bytes)
                promise(device_bytes - have)
            os.fsync(fd)

    def delete(self, folder: Folder, name: str) -> None:
        self.partial.remove(name)
        with self.space.changing() as promise:
            promise(-(folder.remove(name) or 0))
        folder.sync()

    def _scan(self) -> list[Held]:
        return [*self.volumes.held("volume"), *self.snapshots.held("snapshot"), *self.partial.held("leftover")]
