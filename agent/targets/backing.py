"""The block device by which a volume is offered, whatever the protocol; it carries the volume's id in the kernel.

A volume that is a file is offered through a loop device (a file behind the kernel's target would never grow), a
logical volume through a linear one of exactly its bytes, named after the volume.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

from agent.host import lio, nvmet, sysfs
from agent.host import lvm as names
from agent.privsep import block, lvm, mapped
from agent.privsep.client import call, mode
from agent.privsep.waiting import HELD_S, patiently
from agent.targets.errors import GrowRefused, NotExportable


async def attach(volume_id: str, path: Path) -> tuple[str, int | None]:
    """The device (`/dev/loop3`) of the volume at `path`, made or found, and its DISKSEQ. NotExportable."""
    real, mode = await asyncio.to_thread(_what, path)
    if (group := await asyncio.to_thread(_group, volume_id, real)) is not None:
        row = await call(lvm.lvm_show, group, "volume", volume_id)
        if row is None:
            raise NotExportable(volume=volume_id, path=real)
        made = await call(mapped.mapped_attach, group, volume_id, row["exact"], False, volume_id)
        return f"/dev/{made['name']}", made["diskseq"]
    if stat.S_ISBLK(mode):
        return real, sysfs.diskseq(Path(real).name)
    if not stat.S_ISREG(mode):
        raise NotExportable(volume=volume_id, path=real)
    bound = await call(block.loop_attach, real, False, volume_id, "export")
    return str(bound["device"]), bound["diskseq"]


async def release(volume_id: str) -> bool:
    """Let go of the device, unless another protocol still offers it; whether there was one."""
    if any(lio.target(volume_id, fabric=one) for one in lio.FABRICS) or nvmet.subsystems(volume_id):
        return False
    end = asyncio.get_running_loop().time() + HELD_S
    if _linear(volume_id):
        return await patiently(lambda: call(mapped.mapped_detach, volume_id), end)
    loop = await _loop(volume_id)
    if loop is None:
        return False
    number, diskseq = loop["number"], loop["diskseq"]
    await patiently(lambda: call(block.loop_detach, number, diskseq, volume_id, "export"), end)
    return True


async def grow(volume_id: str, size: int) -> bool:
    """Let the device follow to `size` bytes; False when there is none. GrowRefused."""
    if _linear(volume_id):
        have = await call(mapped.mapped_resize, volume_id, size)
    elif (loop := await _loop(volume_id)) is not None:
        have = await call(block.loop_resize, loop["number"], loop["diskseq"], volume_id, "export")
    else:
        return False
    if have < size:
        raise GrowRefused(volume=volume_id, have=have, need=size)
    return True


def _group(volume_id: str, real: str) -> str | None:
    """The volume group when that path is the device of the volume as a logical one."""
    found = sysfs.mapper_named(Path(real).name)
    split = names.split_title(found.title) if found is not None and found.uuid.startswith("LVM-") else None
    return split[0] if split is not None and split[1] == names.volume_name("volume", volume_id) else None


def _linear(volume_id: str) -> bool:
    return sysfs.mapper_device(names.ATTACHED_PREFIX + volume_id) is not None


async def _loop(volume_id: str) -> dict[str, Any] | None:
    """The loop device that the volume is offered through. An agent without privileges asks only where one may be."""
    loops = sysfs.loop_devices()
    if not loops or (mode() == "none" and not any(loop.file_name == volume_id for loop in loops)):
        return None
    return next((loop for loop in await call(block.loop_list, "export") if loop["attachment_id"] == volume_id), None)


def _what(path: Path) -> tuple[str, int]:
    real = os.path.realpath(path)
    return real, Path(real).stat().st_mode
