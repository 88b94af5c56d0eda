"""Attachments of logical volumes on this host: a device of exactly the volume's bytes, decrypted on top where asked.

The part of the local connector for volumes that are block devices already. As with files, what is attached is read
from the kernel each time, and attach and detach pick up where they were interrupted.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from agent.connectors.errors import DeviceMismatch
from agent.host import lvm as names
from agent.host import sysfs
from agent.privsep import mapped
from agent.privsep.client import call, mode


def named(path: Path) -> tuple[str, str] | None:
    """Group and id of the logical volume whose device that is; None for anything else. DeviceMismatch."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISBLK(found.st_mode):
        return None
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    there = next((one for one in sysfs.mapper_devices("") if sysfs.number_of(one.name) == number), None)
    split = names.split_title(there.title) if there is not None and there.uuid.startswith("LVM-") else None
    parsed = names.parsed_name(split[1]) if split is not None else None
    if split is None or parsed is None or parsed[0] != "volume":
        raise DeviceMismatch(device=str(path), attachment="", reason="it is no volume of a back end")
    return split[0], parsed[1]


async def attach(group: str, volume_id: str, attachment_id: str, size: int, read_only: bool) -> dict[str, Any]:
    """What `agent.privsep.mapped.mapped_attach` tells, after sysfs has shown the same. DeviceMismatch."""
    made = await call(mapped.mapped_attach, group, volume_id, size, read_only, attachment_id)
    wanted = (names.mapper_title(group, names.volume_name("volume", volume_id)), size, read_only)
    seen = _seen(attachment_id)
    if seen != wanted:
        if made["created"]:
            await detach(attachment_id)
        raise DeviceMismatch(
            device=made["device"],
            attachment=attachment_id,
            reason=f"volume, size, read-only are {seen}, wanted {wanted}",
        )
    return made


async def listed() -> list[dict[str, Any]]:
    """Every attachment of a logical volume. Without privileges that is "none" only where there is none."""
    if not sysfs.mapper_devices(names.ATTACHED_PREFIX) and mode() in {"none", "forked"}:
        return []
    # One that bears the id of its own volume is what a target offers to other hosts.
    return [one for one in await call(mapped.mapped_list) if not str(one["volume"]).endswith(_escaped(one))]


def there(attachment_id: str) -> bool:
    """Whether the kernel shows the attachment's device."""
    return sysfs.mapper_device(names.ATTACHED_PREFIX + attachment_id) is not None


async def detach(attachment_id: str) -> bool:
    """Flush and remove; False when nothing was attached. DeviceHeld."""
    return there(attachment_id) and await call(mapped.mapped_detach, attachment_id)


async def cut(attachment_id: str) -> bool:
    """Cut whoever has it open off from the volume; False when nothing was attached. KernelRefused."""
    return there(attachment_id) and await call(mapped.mapped_cut, attachment_id)


async def resize(attachment_id: str, size: int) -> int:
    """Let the device show the `size` bytes of its grown volume. DeviceForeign, KernelRefused."""
    return await call(mapped.mapped_resize, attachment_id, size)


def _escaped(one: dict[str, Any]) -> str:
    return str(one["attachment_id"]).replace("-", "--")


def _seen(attachment_id: str) -> tuple[str, int, bool] | None:
    found = sysfs.mapper_device(names.ATTACHED_PREFIX + attachment_id)
    below = sysfs.mapper_named(found.below[0]) if found is not None and len(found.below) == 1 else None
    if found is None or below is None or found.uuid != names.ATTACHED_UUID + attachment_id:
        return None
    return below.title, found.size, sysfs.is_read_only(found.name)
