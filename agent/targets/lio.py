"""The target `lio`: iSCSI by the kernel. Each volume has a target of its own, named by its id, with one LUN.

A volume that is a file is offered through a loop device (a file behind the kernel's target would never grow), a
logical volume through a linear one of exactly its bytes, named after the volume.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.host import lio, netlink, scsi, sysfs
from agent.host import lvm as names
from agent.privsep import block, lvm, mapped
from agent.privsep import lio as verbs
from agent.privsep.client import call
from agent.targets.base import Consumer, Offered
from agent.targets.config import LioConfig
from agent.targets.errors import GrowRefused, NoPortal, NotExportable
from agent.wire.jobs import Connection, Portal


class LioTarget:
    """See `agent.targets.base.Target`. `address`: where this host is reached when no portals are configured."""

    protocol = "iscsi"
    modules: tuple[str, ...] = ("target_core_mod",)

    def __init__(self, config: LioConfig, address: str | None = None, root: Path = lio.CONFIGFS) -> None:
        self._config, self._address, self._root = config, address, root

    async def apply(self, volume_id: str, path: Path, consumers: Sequence[Consumer]) -> Mapping[str, Connection]:
        portals = await asyncio.to_thread(self._portals)
        device, diskseq = await self._device(volume_id, path)
        made = await call(
            verbs.lio_apply,
            volume_id,
            device,
            diskseq,
            [(portal.address, portal.port) for portal in portals],
            [(one.initiator, one.mode == "ro", one.username, one.secret) for one in _by_initiator(consumers)],
        )
        users = {one.initiator: one for one in _by_initiator(consumers)}
        return {one.attachment_id: _connection(made, portals, users[one.initiator]) for one in consumers}

    async def withdraw(self, volume_id: str) -> bool:
        there = False
        if lio.target(volume_id, self._root) is not None:
            there = await call(verbs.lio_remove, volume_id)
        if _linear(volume_id):
            return await call(mapped.mapped_detach, volume_id)
        loop = await _loop(volume_id)
        if loop is None:
            return there
        await call(block.loop_detach, loop["number"], loop["diskseq"], volume_id, "export")
        return True

    async def grow(self, volume_id: str, size: int) -> None:
        if _linear(volume_id):
            have = await call(mapped.mapped_resize, volume_id, size)
        elif (loop := await _loop(volume_id)) is not None:
            have = await call(block.loop_resize, loop["number"], loop["diskseq"], volume_id, "export")
        else:
            return
        if have < size:
            raise GrowRefused(volume=volume_id, have=have, need=size)

    def offered(self) -> Mapping[str, Offered]:
        return {
            found.volume_id: Offered(
                target=found.target,
                ready=found.ready and bool(found.portals),
                initiators=frozenset(one.initiator for one in found.consumers),
                connected=frozenset(one.initiator for one in found.consumers if one.connected),
            )
            for found in lio.targets(self._root)
        }

    def _portals(self) -> tuple[Portal, ...]:
        own = (self._address,) if _is_ip(self._address) else ()
        named = self._config.portals or own or netlink.reachable_addresses()
        if not named:
            raise NoPortal()
        return tuple(Portal(address=str(address), port=self._config.port) for address in named)

    async def _device(self, volume_id: str, path: Path) -> tuple[str, int | None]:
        real, mode = await asyncio.to_thread(_what, path)
        if (group := await asyncio.to_thread(_group, volume_id, real)) is not None:
            row = await call(lvm.lvm_show, group, "volume", volume_id)
            if row is None:
                raise NotExportable(volume=volume_id, path=real)
            made = await call(mapped.mapped_attach, group, volume_id, row["exact"], False, volume_id)
            return f"/dev/{made['name']}", made["diskseq"]
        if stat.S_ISBLK(mode):
            told = sysfs.text(sysfs.SYS / "block" / Path(real).name / "diskseq") or ""
            return real, int(told) if told.isdigit() else None
        if not stat.S_ISREG(mode):
            raise NotExportable(volume=volume_id, path=real)
        bound = await call(block.loop_attach, real, False, volume_id, "export")
        return str(bound["device"]), bound["diskseq"]


def _by_initiator(consumers: Sequence[Consumer]) -> list[Consumer]:
    """One per initiator: the first, which may write when any of them may."""
    found: dict[str, Consumer] = {}
    for one in consumers:
        first = found.setdefault(one.initiator, one)
        if one.mode == "rw" and first.mode == "ro":
            found[one.initiator] = Consumer(first.attachment_id, first.initiator, "rw", first.username, first.secret)
    return list(found.values())


def _connection(made: dict[str, Any], portals: tuple[Portal, ...], user: Consumer) -> Connection:
    return Connection(
        protocol="iscsi",
        target=made["target"],
        portals=portals,
        lun=made["lun"],
        identity=scsi.lio_identity(made["serial"]),
        serial=made["serial"],
        size_bytes=made["size"],
        auth="none" if user.secret is None else "chap",
        username=user.username,
    )


def _group(volume_id: str, real: str) -> str | None:
    """The volume group when that path is the device of the volume as a logical one."""
    found = sysfs.mapper_named(Path(real).name)
    split = names.split_title(found.title) if found is not None and found.uuid.startswith("LVM-") else None
    return split[0] if split is not None and split[1] == names.volume_name("volume", volume_id) else None


def _linear(volume_id: str) -> bool:
    return sysfs.mapper_device(names.ATTACHED_PREFIX + volume_id) is not None


async def _loop(volume_id: str) -> dict[str, Any] | None:
    """The loop device that the volume is offered through. Asks root only where the volume's file is bound at all."""
    if not any(loop.file_name == volume_id for loop in sysfs.loop_devices()):
        return None
    return next((loop for loop in await call(block.loop_list, "export") if loop["attachment_id"] == volume_id), None)


def _what(path: Path) -> tuple[str, int]:
    real = os.path.realpath(path)
    return real, Path(real).stat().st_mode


def _is_ip(text: str | None) -> bool:
    try:
        ipaddress.ip_address(text or "")
    except ValueError:
        return False
    return True
