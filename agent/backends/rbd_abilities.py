"""What a pool of Ceph can do besides: go back to a snapshot, take a new content, adopt what others made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from agent.backends import rbd_names as names
from agent.backends.abilities import Foreign
from agent.backends.base import CloneSource, Work
from agent.backends.errors import NotAdoptable, VolumeExists, VolumeNotFound
from agent.backends.rbd import RbdBackend
from agent.backends.rbd_cluster import EXISTS, NOT_THERE
from agent.backends.unmanaged import released_name
from agent.base.faults import declare, fault_point
from agent.base.ids import checked_id

declare("backend.rbd.replacing")


class WholeRbdBackend(RbdBackend):
    """The back end `rbd` with all its abilities."""

    async def revert(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        name = checked_id(volume_id, "volume")
        snapshot = await self._must("snapshot", checked_id(snapshot_id, "snapshot"))
        have = await self._image("volume", name)
        # Killed between the two renames, the volume has its new content already, half-made by name alone.
        size = have.size if have is not None else (await self._must("leftover", name)).size
        if size != snapshot.size:
            raise VolumeExists(noun="Volume", id=name, backend=self.name, have=size, need=snapshot.size)
        if have is not None:
            await self._clone(CloneSource("snapshot", snapshot_id), name, work or Work())
        await self.replace(name)
        return snapshot.size

    async def prepare_anew(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        return await self._partial(checked_id(volume_id, "volume"), device_bytes, work)

    async def replace(self, volume_id: str) -> None:
        name = checked_id(volume_id, "volume")
        await self._open.release(names.image("leftover", name))
        if await self._image("leftover", name) is not None:
            await self._drop("volume", name)
            fault_point("backend.rbd.replacing")
        await self._publish(name, "volume")

    async def foreign(self) -> list[Foreign]:
        return [
            Foreign(_kind(one), one.name, one.size, _objection(one), _source(one))
            for one in await self._space.listed(fresh=True)
            if names.parsed(one.name) is None
        ]

    async def adopt(self, kind: Literal["volume", "snapshot"], new_id: str, name: str, device_bytes: int) -> None:
        ident = checked_id(new_id, kind)
        have = await self._image(kind, ident)
        if have is not None and have.size != device_bytes:
            raise VolumeExists(noun=kind.capitalize(), id=ident, backend=self.name, have=have.size, need=device_bytes)
        if have is not None:
            return
        await self._fit(name, device_bytes)
        if kind == "snapshot":
            base = f"{self._cluster.spec(name)}@{names.BASE}"
            await self._cluster.rbd("snap", "create", "--no-progress", base, ok=(EXISTS,))
        await self._cluster.rbd("rename", self._cluster.spec(name), self._spec(kind, ident))
        self._space.promise(device_bytes)

    async def release(
        self, kind: Literal["volume", "snapshot"], old_id: str, source: str = "", *, name: str = ""
    ) -> str:
        ident = checked_id(old_id, kind)
        name = name or released_name(kind, ident, source)
        await self._open.release(names.image(kind, ident))
        have = await self._image(kind, ident)
        if have is None:
            if await self._cluster.asked("info", self._cluster.spec(name), none=(NOT_THERE,)) is None:
                raise VolumeNotFound(noun=kind.capitalize(), id=ident, backend=self.name)
            return name
        await self._cluster.rbd("rename", self._spec(kind, ident), self._cluster.spec(name))
        self._space.promise(-have.size)
        return name

    async def _fit(self, name: str, device_bytes: int) -> None:
        found = next((one for one in await self.foreign() if one.name == name), None)
        if found is None:
            raise VolumeNotFound(noun="Unmanaged volume", id=name[:64], backend=self.name)
        reason = found.reason
        if not reason and found.size_bytes != device_bytes:
            reason = f"it has {found.size_bytes} bytes now, and had {device_bytes} when it was chosen"
        if not reason and (users := await self._watchers(name)):
            reason = f"it is in use by {users[0]}"
        if reason:
            raise NotAdoptable(name=name, backend=self.name, reason=reason)


def _kind(one: names.Listed) -> Literal["volume", "snapshot"]:
    return "snapshot" if names.BASE in one.snapshots else "volume"


def _objection(one: names.Listed) -> str:
    """Why it can not be adopted; empty when it can."""
    if not set("/@ ").isdisjoint(one.name) or one.name.startswith("-"):
        return "its name is one that Brickyard can not use"
    theirs = [name for name in one.snapshots if name != names.BASE and not name.startswith(names.MOMENT)]
    return "it has snapshots of its own" if theirs else ""


def _source(one: names.Listed) -> str:
    """The name of what it is a snapshot of, as the caller knows it: released volumes keep theirs."""
    if names.BASE not in one.snapshots:
        return ""
    parsed = names.parsed(one.parent)
    return f"volume-{parsed[1]}" if parsed is not None else one.parent
