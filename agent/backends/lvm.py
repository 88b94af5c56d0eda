"""The back end `lvm`: each volume is a logical volume, thin in a pool or thick.

`byv-ID` is a volume, `bys-ID` a snapshot, `byp-ID` half-made, `byd-ID` being wiped; the last step of making something
is the rename from `byp`. What LVM says is asked each time, so nothing is stale after a kill or an operator's own
`lvremove`; the sums of a pool come from one report that is kept for a moment. Thin snapshots and clones share data;
thick ones are copied. New thick space is overwritten with zeros before anybody sees it.
Callers: job handlers, by way of `agent.backends.base`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.backends import lvm_device
from agent.backends.base import CloneSource, Held, PoolState, Trouble, Work
from agent.backends.config import LvmBackendConfig
from agent.backends.errors import ShrinkRefused, VolumeExists, VolumeNotFound, translated
from agent.backends.lvm_device import Device
from agent.backends.lvm_group import LvmGroup
from agent.base.errors import BrickyardError
from agent.base.faults import declare, fault_point
from agent.base.ids import checked_id
from agent.copying.engine import copy
from agent.copying.model import Dest, Source
from agent.copying.throttle import Throttle
from agent.host import lvm as names
from agent.host import sysfs
from agent.host.lvm import Part
from agent.privsep import lvm as verbs
from agent.privsep.errors import DeviceHeld, VolumeMissing

declare("backend.lvm.made", "backend.lvm.zeroed", "backend.lvm.grown", "backend.lvm.dying", "backend.lvm.wiped")


@dataclass(frozen=True, slots=True)
class _Row:
    """One logical volume as LVM tells it; `size` is whole extents, `exact` what was asked for. Bytes."""

    size: int
    exact: int
    tags: str
    pool: str
    uuid: str

    @property
    def zeroed(self) -> bool:
        return names.ZEROED_TAG in self.tags.split(",")


class LvmBackend:
    """See `agent.backends.base.Backend`. Opening it touches nothing: a group that is away may come back."""

    def __init__(self, name: str, config: LvmBackendConfig) -> None:
        self._name, self._config = name, config
        self.budget = Throttle(config.rate_limit)
        self._group = LvmGroup(name, config)

    @property
    def name(self) -> str:
        return self._name

    def close(self) -> None:
        return

    async def pools(self) -> tuple[PoolState, ...]:
        return (await self._group.state(),)

    async def create(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        if await self._there("volume", name, device_bytes):
            return
        if self._group.pool is not None:
            async with self._group.promised(device_bytes):
                await self._group.change(verbs.lvm_create, self._group.pool, "volume", name, device_bytes)
            return
        await self._partial(name, device_bytes, work or Work(), zeroed=True)
        await self.publish(name)

    async def prepare(self, volume_id: str, device_bytes: int, work: Work | None = None) -> Path:
        """Raises VolumeExists when the volume is published already: ask `size()` first."""
        name = checked_id(volume_id, "volume")
        have = await self._row("volume", name)
        if have is not None:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=have.exact, need=device_bytes)
        device = await self._partial(name, device_bytes, work or Work(), zeroed=True)
        return device.path

    async def prepared(self, volume_id: str) -> int | None:
        row = await self._row("partial", checked_id(volume_id, "volume"))
        return None if row is None else row.exact

    async def publish(self, volume_id: str) -> None:
        await self._publish(checked_id(volume_id, "volume"), "volume")

    async def discard(self, volume_id: str) -> None:
        await self._remove(checked_id(volume_id, "volume"), "partial")

    async def clone(self, volume_id: str, device_bytes: int, source: CloneSource, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        if await self._there("volume", name, device_bytes):
            return
        found = await self._must(source.kind, checked_id(source.id, source.kind))
        if device_bytes < found.exact:
            raise ShrinkRefused(id=name, have=found.exact, need=device_bytes)
        if self._group.pool is None:
            await self._copy(source, found, name, device_bytes, work or Work())
            await self._publish(name, "volume")
            return
        async with self._group.promised(device_bytes):
            # A snapshot of an earlier try may be of another moment, and there is nothing to be saved by keeping it.
            await self._remove(name, "partial")
            await self._group.change(verbs.lvm_snapshot, (source.kind, source.id), "partial", name, found.exact)
            fault_point("backend.lvm.made")
            await self._grow("partial", name, found, device_bytes, Work())
        await self._publish(name, "volume")

    async def extend(self, volume_id: str, device_bytes: int, work: Work | None = None) -> None:
        name = checked_id(volume_id, "volume")
        have = await self._must("volume", name)
        if device_bytes < have.exact:
            raise ShrinkRefused(id=name, have=have.exact, need=device_bytes)
        if device_bytes > have.size:
            async with self._group.promised(device_bytes - have.size):
                await self._group.change(verbs.lvm_extend, "volume", name, device_bytes)
            have = replace(have, size=device_bytes)
        await self._grow("volume", name, have, device_bytes, work or Work())

    async def delete(self, volume_id: str, work: Work | None = None) -> None:
        await self._delete("volume", checked_id(volume_id, "volume"), work or Work())

    async def snapshot(self, volume_id: str, snapshot_id: str, work: Work | None = None) -> int:
        name = checked_id(snapshot_id, "snapshot")
        have = await self._row("snapshot", name)
        if have is not None:
            return have.exact
        found = await self._must("volume", checked_id(volume_id, "volume"))
        if self._group.pool is None:
            await self._copy(CloneSource("volume", volume_id), found, name, found.exact, work or Work())
            await self._publish(name, "snapshot")
        else:
            async with self._group.promised(found.exact):
                await self._group.change(verbs.lvm_snapshot, ("volume", volume_id), "snapshot", name, found.exact)
        return found.exact

    async def delete_snapshot(self, snapshot_id: str, work: Work | None = None) -> None:
        await self._delete("snapshot", checked_id(snapshot_id, "snapshot"), work or Work())

    async def size(self, volume_id: str) -> int | None:
        row = await self._row("volume", checked_id(volume_id, "volume"))
        return None if row is None else row.exact

    async def path(self, volume_id: str) -> Path:
        """Activates the volume; an attachment's end, or a deletion, lets it go again."""
        return (await self._active("volume", checked_id(volume_id, "volume"))).path

    async def source_path(self, source: CloneSource) -> Path:
        return (await self._active(source.kind, checked_id(source.id, source.kind))).path

    async def holders(self, volume_id: str, *, writers: bool) -> list[str]:
        name = names.volume_name("volume", checked_id(volume_id, "volume"))
        found = sysfs.mapper_device(names.mapper_title(self._group.name, name))
        users = () if found is None else sysfs.users_of(found.name)
        return [user for user in users if not (writers and sysfs.is_read_only(user.partition(" ")[0]))]

    async def inventory(self) -> list[Held]:
        return (await self._group.space(fresh=True)).held()

    async def issues(self) -> list[Trouble]:
        return await self._group.troubles()

    # Steps that several verbs share.

    async def _partial(self, name: str, device_bytes: int, work: Work, *, zeroed: bool) -> Device:
        """A half-made volume of that size, active; with `zeroed` what was not written since reads as zeros."""
        row, fresh = await self._row("partial", name), False
        if row is not None and row.exact != device_bytes:
            await self._remove(name, "partial")
            row = None
        if row is None:
            async with self._group.promised(device_bytes):
                await self._group.change(verbs.lvm_create, self._group.pool, "partial", name, device_bytes)
            fresh = True
            fault_point("backend.lvm.made")
        device = await self._active("partial", name)
        if zeroed and self._group.pool is None and not (row is not None and row.zeroed):
            await lvm_device.clear(device, 0, self._limited(work), fresh=fresh)
            fault_point("backend.lvm.zeroed")
            sizes = (device_bytes, device_bytes)
            await self._group.ask(verbs.lvm_settle, "partial", name, sizes, zeroed=True)
        return device

    async def _grow(self, part: Part, name: str, row: _Row, device_bytes: int, work: Work) -> None:
        if row.exact == device_bytes:
            return
        if row.size < device_bytes:
            await self._group.change(verbs.lvm_extend, part, name, device_bytes)
        fault_point("backend.lvm.grown")
        if self._group.pool is None:
            # Whatever lies behind the old bytes was never shown to anybody, so a repeat may clear it again.
            await lvm_device.clear(await self._active(part, name), row.exact, self._limited(work), fresh=False)
        await self._group.change(verbs.lvm_settle, part, name, (row.exact, device_bytes), zeroed=row.zeroed)

    async def _copy(self, source: CloneSource, row: _Row, name: str, device_bytes: int, work: Work) -> None:
        kept = await self._row("partial", name) is not None
        device = await self._partial(name, device_bytes, work, zeroed=False)
        checkpoint = work.checkpoint if kept or work.checkpoint is None else replace(work.checkpoint, start=0)
        origin = await self._active(source.kind, source.id)
        dest = Dest(device.open, device.size, zeros_skippable=False)
        options = self._limited(work).options
        try:
            await copy(Source(origin.open, row.exact), dest, options, work.progress, checkpoint, work.cancel)
        except BrickyardError:
            await self._remove(name, "partial")
            raise
        finally:
            await self._let_go(source.kind, source.id)

    async def _publish(self, name: str, part: Part) -> None:
        try:
            await self._group.change(verbs.lvm_rename, "partial", name, part)
        except VolumeMissing:
            raise VolumeNotFound(noun="Half-made volume", id=name, backend=self._name) from None
        await self._let_go(part, name)

    async def _delete(self, part: Part, name: str, work: Work) -> None:
        if self._group.pool is not None or self._config.wipe == "none":
            await self._remove(name, "partial", "dying", part)
            return
        await self._remove(name, "partial")
        fresh = await self._row(part, name) is not None
        if fresh:
            await self._let_go(part, name, must=True)
            await self._group.change(verbs.lvm_rename, part, name, "dying")
            fault_point("backend.lvm.dying")
        elif await self._row("dying", name) is None:
            return
        await self._wiped(name, work, fresh=fresh)

    async def _wiped(self, name: str, work: Work, *, fresh: bool) -> None:
        """Remove what is dying, its bytes first where that is wanted."""
        if self._group.pool is None and self._config.wipe != "none":
            device = await self._active("dying", name)
            if self._config.wipe == "zero":
                await lvm_device.clear(device, 0, self._limited(work), fresh=fresh)
            with translated(self._name):
                await lvm_device.give_back(device)
        fault_point("backend.lvm.wiped")
        await self._remove(name, "dying")

    async def _remove(self, name: str, *parts: Part) -> None:
        await self._group.change(verbs.lvm_remove, parts, name)

    async def _active(self, part: Part, name: str) -> Device:
        try:
            made = await self._group.ask(verbs.lvm_activate, part, name)
        except VolumeMissing:
            raise self._unknown(part, name) from None
        device = Device(self._name, name, Path(made["device"]), made["uuid"], made["size"])
        with translated(self._name):
            await lvm_device.in_thread(device.readable)
        return device

    async def _let_go(self, part: Part, name: str, *, must: bool = False) -> None:
        try:
            await self._group.ask(verbs.lvm_deactivate, part, name)
        except (DeviceHeld, VolumeMissing):
            if must:
                raise

    async def _row(self, part: Part, name: str) -> _Row | None:
        found: dict[str, Any] | None = await self._group.ask(verbs.lvm_show, part, name)
        return None if found is None or found["pool"] != (self._group.pool or "") else _Row(**found)

    async def _must(self, part: Part, name: str) -> _Row:
        row = await self._row(part, name)
        if row is None:
            raise self._unknown(part, name)
        return row

    async def _there(self, part: Part, name: str, device_bytes: int) -> bool:
        row = await self._row(part, name)
        if row is not None and row.exact != device_bytes:
            raise VolumeExists(noun="Volume", id=name, backend=self._name, have=row.exact, need=device_bytes)
        return row is not None

    def _unknown(self, part: Part, name: str) -> VolumeNotFound:
        noun = "Half-made volume" if part in {"partial", "dying"} else part.capitalize()
        return VolumeNotFound(noun=noun, id=name, backend=self._name)

    def _limited(self, work: Work) -> Work:
        return replace(work, options=work.options.within(self.budget))
