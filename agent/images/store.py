"""The images a store agent keeps: `incoming/<id>` while bytes arrive, `images/<id>` once they were accepted.

The move from one to the other is a rename after everything was synced, hashed and inspected, so an image is there
whole or not at all. What was refused stays in `incoming` until it is deleted.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.base.files import sync_folder
from agent.base.ids import checked_id, is_id
from agent.images.errors import ImageDiffers, ImageNotFound
from agent.images.inspect import DEFAULT, Declared, Inspection, Limits, inspect

_CHUNK = 4 << 20
Tell = Callable[[int], None]
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Committed:
    """An accepted image: bytes of the file, hex digests over them, and what inspection found."""

    size: int
    md5: str
    sha256: str
    inspection: Inspection


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of the store; `leftover` are bytes that were never committed."""

    id: str
    kind: Literal["image", "leftover"]
    size: int
    allocated: int


class ImageStore:
    """Images below `root`. Methods are safe to repeat; each image is worked on by one caller at a time."""

    def __init__(self, root: Path, limits: Limits = DEFAULT) -> None:
        self._incoming, self._images = root / "incoming", root / "images"
        self._limits = limits
        self._busy: dict[str, asyncio.Lock] = {}

    def open(self) -> None:
        """Make the folders; call once at start."""
        for folder in (self._incoming, self._images):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(self._images.parent)

    def receive(self, image_id: str) -> int:
        """A descriptor to write an image's bytes to, from nothing; raises ImageDiffers when it is kept already."""
        checked_id(image_id, "image")
        if (self._images / image_id).exists():
            raise ImageDiffers(id=image_id)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._incoming / image_id, flags, 0o600)

    def read(self, image_id: str) -> int:
        """A descriptor to read a kept image from; raises ImageNotFound."""
        try:
            return os.open(self._images / checked_id(image_id, "image"), _READ)
        except FileNotFoundError:
            raise ImageNotFound(id=image_id) from None

    def kept_path(self, image_id: str) -> Path:
        """Where a kept image lies, for a transfer; raises ImageNotFound."""
        path = self._images / checked_id(image_id, "image")
        if not path.exists():
            raise ImageNotFound(id=image_id)
        return path

    def incoming_path(self, image_id: str) -> Path:
        """Where a transfer may put an image's bytes; raises ImageDiffers when it is kept already."""
        if (self._images / checked_id(image_id, "image")).exists():
            raise ImageDiffers(id=image_id)
        return self.arriving_path(image_id)

    def arriving_path(self, image_id: str) -> Path:
        """Where an image's bytes lie until they are committed, whether there are any or not."""
        return self._incoming / checked_id(image_id, "image")

    async def commit(self, image_id: str, declared: Declared, tell: Tell = lambda done: None) -> Committed:
        """Sync, hash and inspect the bytes that arrived, then keep them; `tell` hears how many are hashed.

        Kept already with the same bytes: success. Raises ImageNotFound, ImageDiffers, or why it was refused.
        """
        checked_id(image_id, "image")
        async with self._busy.setdefault(image_id, asyncio.Lock()):
            return await asyncio.to_thread(self._commit, image_id, declared, tell)

    async def arrived(self, image_id: str) -> int:
        """How many bytes of it wait to be committed."""
        try:
            return (await asyncio.to_thread(self.arriving_path(image_id).stat)).st_size
        except FileNotFoundError:
            return 0

    async def delete(self, image_id: str) -> None:
        """Remove an image and bytes of it that arrived; nothing there is success."""
        checked_id(image_id, "image")
        async with self._busy.setdefault(image_id, asyncio.Lock()):
            await asyncio.to_thread(self._delete, image_id)
        self._busy.pop(image_id, None)

    async def inventory(self) -> list[Stored]:
        """Everything that the store holds."""
        return await asyncio.to_thread(self._inventory)

    def _commit(self, image_id: str, declared: Declared, tell: Tell) -> Committed:
        arrived, kept = self._incoming / image_id, self._images / image_id
        present = _taken(arrived, declared, self._limits, tell)
        before = _taken(kept, declared, self._limits, tell)
        if present is None and before is None:
            raise ImageNotFound(id=image_id)
        if present is None:
            assert before is not None
            return before
        if before is not None:
            if before.sha256 != present.sha256:
                raise ImageDiffers(id=image_id)
            arrived.unlink()
        else:
            arrived.chmod(0o400)
            arrived.rename(kept)
            sync_folder(self._images)
        sync_folder(self._incoming)
        return present

    def _delete(self, image_id: str) -> None:
        for folder in (self._incoming, self._images):
            (folder / image_id).unlink(missing_ok=True)
            sync_folder(folder)

    def _inventory(self) -> list[Stored]:
        found: list[Stored] = []
        kinds: tuple[tuple[Path, Literal["image", "leftover"]], ...] = (
            (self._images, "image"),
            (self._incoming, "leftover"),
        )
        for folder, kind in kinds:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_id(entry.name) and entry.is_file(follow_symlinks=False):
                        info = entry.stat(follow_symlinks=False)
                        found.append(Stored(entry.name, kind, info.st_size, info.st_blocks * 512))
        return found


def _taken(path: Path, declared: Declared, limits: Limits, tell: Tell) -> Committed | None:
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return None
    try:
        found = inspect(fd, declared, limits)
        os.fsync(fd)
        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        # The digests are nearly all of the time that this takes; neither waits for the other.
        with ThreadPoolExecutor(1, thread_name_prefix="digest") as beside:
            while chunk := os.pread(fd, _CHUNK, size):
                other = beside.submit(md5.update, chunk)
                sha256.update(chunk)
                other.result()
                size += len(chunk)
                tell(size)
        return Committed(size, md5.hexdigest(), sha256.hexdigest(), found)
    finally:
        os.close(fd)
