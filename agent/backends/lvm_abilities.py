"""What LVM can do besides: go back to a snapshot, take a new content, adopt what others made. See `abilities`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from agent.backends import lvm_adopting
from agent.backends.abilities import Foreign
from agent.backends.base import CloneSource, Work
from agent.backends.errors import NotAdoptable, VolumeExists, VolumeNotFound
from agent.backends.lvm import LvmBackend
from agent.base.faults import declare, fault_point
from agent.base.ids import checked_id
from agent.privsep import lvm as verbs
from agent.privsep.errors import DeviceHeld, VerbRefused, VolumeMissing

declare("backend.lvm.replacing")


class WholeLvmBackend(LvmBackend):
    """The back end `lvm` with all its abilities."""

    async def revert(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        name = checked_id(volume_id, "volume")
        snapshot = await self._must("snapshot", checked_id(snapshot_id, "snapshot"))
        have = await self._row("volume", name) or await self._must("dying", name)
        if snapshot.exact != have.exact:
            raise VolumeExists(noun="Volume", id=name, backend=self.name, have=have.exact, need=snapshot.exact)
        # Killed between the two renames, the volume has its new content already, half-made by name alone.
        if await self._row("volume", name) is not None:
            source = CloneSource("snapshot", snapshot_id)
            if self._group.pool is None:
                await self._copy(source, snapshot, name, snapshot.exact, work or Work())
            else:
                await self._remove(name, "partial")
                await self._group.change(verbs.lvm_snapshot, ("snapshot", snapshot_id), "partial", name, snapshot.exact)
        await self.replace(name)
        return snapshot.exact

    async def prepare_anew(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        return (await self._partial(checked_id(volume_id, "volume"), device_bytes, work or Work(), zeroed=True)).path

    async def replace(self, volume_id: str) -> None:
        name = checked_id(volume_id, "volume")
        if await self._row("partial", name) is None:
            if await self._row("volume", name) is None:
                raise VolumeNotFound(noun="Half-made volume", id=name, backend=self.name)
        else:
            if await self._row("volume", name) is not None:
                await self._remove(name, "dying")
                await self._let_go("volume", name, must=True)
                await self._group.change(verbs.lvm_rename, "volume", name, "dying")
                fault_point("backend.lvm.replacing")
            await self._publish(name, "volume")
        if await self._row("dying", name) is not None:
            await self._wiped(name, Work(), fresh=True)

    async def foreign(self) -> list[Foreign]:
        return lvm_adopting.listing(await self._group.space(fresh=True))

    async def adopt(self, kind: Literal["volume", "snapshot"], new_id: str, name: str, device_bytes: int) -> None:
        ident = checked_id(new_id, kind)
        have = await self._row(kind, ident)
        if have is not None and have.exact != device_bytes:
            raise VolumeExists(noun=kind.capitalize(), id=ident, backend=self.name, have=have.exact, need=device_bytes)
        if have is None:
            self._fit(name, device_bytes, await self.foreign())
        try:
            await self._group.change(verbs.lvm_adopt, name, kind, ident, device_bytes)
        except VolumeMissing:
            raise VolumeNotFound(noun="Unmanaged volume", id=name[:64], backend=self.name) from None
        except (DeviceHeld, VerbRefused) as error:
            raise NotAdoptable(name=name[:64], backend=self.name, reason=str(error).rstrip(".")) from error

    async def release(
        self, kind: Literal["volume", "snapshot"], old_id: str, source: str = "", *, name: str = ""
    ) -> str:
        ident = checked_id(old_id, kind)
        name = name or lvm_adopting.released_name(kind, ident, source)
        await self._let_go(kind, ident)
        try:
            await self._group.change(verbs.lvm_release, kind, ident, name)
        except VolumeMissing:
            raise VolumeNotFound(noun=kind.capitalize(), id=ident, backend=self.name) from None
        return name

    def _fit(self, name: str, device_bytes: int, there: list[Foreign]) -> None:
        found = next((one for one in there if one.name == name), None)
        if found is None:
            raise VolumeNotFound(noun="Unmanaged volume", id=name[:64], backend=self.name)
        reason = found.reason
        if not reason and found.size_bytes != device_bytes:
            reason = f"it has {found.size_bytes} bytes now, and had {device_bytes} when it was chosen"
        if reason:
            raise NotAdoptable(name=name, backend=self.name, reason=reason)
