"""Verbs on attachments of logical volumes: a linear device of exactly the volume's bytes, named after the attachment.

It shows the volume without what LVM rounded up, read-only where that is wanted, and is told apart from everything
else by its UUID in the kernel, `BRICKYARD-<attachment id>`. The volume below is active only while it is needed.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from agent.host import lvm as names
from agent.host import sysfs
from agent.privsep import checks, cutting, lvm, tool
from agent.privsep.contexts import lvm as context
from agent.privsep.contexts import privileged
from agent.privsep.errors import DeviceForeign, DeviceHeld, KernelRefused, LvmUnavailable

_SECTOR = 512


@privileged(context)
def mapped_attach(group: str, volume_id: str, size: int, read_only: bool, attachment_id: str) -> dict[str, Any]:
    """The attachment's device: {device, name, size, read_only, diskseq, volume, created}.

    VolumeMissing, DeviceForeign (the attachment has another volume or mode), KernelRefused, LvmUnavailable.
    """
    vg, name = checks.group(group), checks.logical("volume", volume_id)
    exact, frozen = checks.size(size), checks.flag(read_only, "read_only")
    title = _title(attachment_id)
    below = lvm.activate(vg, name)
    there = _ours(attachment_id)
    if there is None:
        if below["size"] < exact:
            raise DeviceForeign(device=below["device"], reason=f"it has {below['size']} bytes, not {exact}")
        mode = ["--readonly"] if frozen else []
        uuid = names.ATTACHED_UUID + checks.uuid(attachment_id, "attachment")
        _dmsetup("create", title, "--uuid", uuid, *mode, "--table", _table(exact, below["device"]))
    made = _must(attachment_id)
    if made.below != (str(below["device"]).removeprefix("/dev/"),):
        raise DeviceForeign(device=f"/dev/mapper/{title}", reason=f"it stands on {', '.join(made.below)}")
    told = _told(made, created=there is None)
    if told["read_only"] != frozen:
        raise DeviceForeign(device=f"/dev/mapper/{title}", reason="it is attached in another mode")
    return told


@privileged(context)
def mapped_list() -> list[dict[str, Any]]:
    """Every device of an attachment, as `mapped_attach` tells it, with `attachment_id`."""
    return [_told(found, created=False) for found in sysfs.mapper_devices(names.ATTACHED_PREFIX)]


@privileged(context)
def mapped_detach(attachment_id: str) -> bool:
    """Flush and remove, then let the volume go; False when there was nothing. DeviceHeld (nothing was changed)."""
    there = _ours(attachment_id)
    if there is None:
        return False
    device = f"/dev/mapper/{there.title}"
    users = sysfs.users_of(there.name)
    if users:
        raise DeviceHeld(device=device, holders=", ".join(users))
    _claim(there)
    below = [sysfs.mapper_named(name) for name in there.below]
    _dmsetup("remove", there.title, "--retry")
    if sysfs.mapper_device(there.title) is not None:
        raise KernelRefused(action="remove", device=device, reason="it is still there afterwards")
    for found in below:
        _let_go(found)
    return True


@privileged(context)
def mapped_cut(attachment_id: str) -> bool:
    """Cut whoever has it open off, and let the volume go; False when there was nothing. KernelRefused."""
    there = _ours(attachment_id)
    if there is None:
        return False
    below = [sysfs.mapper_named(name) for name in there.below]
    cutting.cut_off(there, checks.cut_name(attachment_id))
    for found in below:
        _let_go(found)
    return True


@privileged(context)
def mapped_resize(attachment_id: str, size: int) -> int:
    """Let the device show the `size` bytes of its grown volume; returns them. DeviceForeign, KernelRefused."""
    exact, there = checks.size(size), _must(attachment_id)
    below = sysfs.mapper_named(there.below[0]) if len(there.below) == 1 else None
    if below is None or below.size < exact or there.size > exact:
        raise DeviceForeign(device=f"/dev/mapper/{there.title}", reason=f"{exact} bytes do not fit to what is below it")
    if there.size != exact:
        _dmsetup("reload", there.title, "--table", _table(exact, f"/dev/{below.name}"))
    # One call swaps the tables, so a kill never leaves it suspended. Repeated, it wakes what was suspended before.
    _dmsetup("resume", there.title)
    return _must(attachment_id).size


def _title(attachment_id: object) -> str:
    return names.ATTACHED_PREFIX + checks.uuid(attachment_id, "attachment")


def _table(size: int, device: str) -> str:
    return f"0 {size // _SECTOR} linear {device} 0"


def _ours(attachment_id: object) -> sysfs.MapperDevice | None:
    title = _title(attachment_id)
    found = sysfs.mapper_device(title)
    if found is not None and found.uuid != f"{names.ATTACHED_UUID}{attachment_id}":
        raise DeviceForeign(device=f"/dev/mapper/{title}", reason="another program made it")
    return found


def _must(attachment_id: object) -> sysfs.MapperDevice:
    found = _ours(attachment_id)
    if found is None:
        raise DeviceForeign(device=f"/dev/mapper/{_title(attachment_id)}", reason="it is not there")
    return found


def _told(found: sysfs.MapperDevice, *, created: bool) -> dict[str, Any]:
    below = sysfs.mapper_named(found.below[0]) if len(found.below) == 1 else None
    return {
        "attachment_id": found.title.removeprefix(names.ATTACHED_PREFIX),
        "device": f"/dev/mapper/{found.title}",
        "name": found.name,
        "size": found.size,
        "read_only": sysfs.is_read_only(found.name),
        "diskseq": sysfs.diskseq(found.name),
        "volume": below.title if below is not None else "",
        "created": created,
    }


def _claim(there: sysfs.MapperDevice) -> None:
    """Flush; and an exclusive open fails for mounts that another mount namespace hides from us, too."""
    device = f"/dev/mapper/{there.title}"
    try:
        fd = os.open(f"/dev/{there.name}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceHeld(device=device, holders=f"the kernel says: {error.strerror}") from error
    try:
        os.fsync(fd)
    except OSError as error:
        raise KernelRefused(action="flush", device=device, reason=str(error)) from error
    finally:
        os.close(fd)


def _let_go(below: sysfs.MapperDevice | None) -> None:
    """Another attachment, or a copy, may have the volume still: then it is let go with that one."""
    found = names.split_title(below.title) if below is not None else None
    if found is not None and names.parsed_name(found[1]) is not None:
        with contextlib.suppress(DeviceHeld):
            lvm.deactivate(checks.group(found[0]), found[1])


def _dmsetup(*arguments: str) -> None:
    if tool.locate("dmsetup") is None:
        raise LvmUnavailable(reason="dmsetup is not installed")
    ended = tool.run("dmsetup", arguments, leashed=False)
    if ended.code:
        action, device = arguments[0], f"/dev/mapper/{arguments[1]}"
        if "busy" in ended.stderr.lower():
            raise DeviceHeld(device=device, holders="the kernel says busy")
        raise KernelRefused(action=action, device=device, reason=ended.stderr or f"exit code {ended.code}")
