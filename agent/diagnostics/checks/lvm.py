"""Can volumes on LVM be made, and is their place sound?"""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent.base.errors import BrickyardError
from agent.diagnostics.finding import Finding, bad, ok, skipped, warning
from agent.diagnostics.place import RULES_REMEDY, Place
from agent.host import lvm, sysfs, tools
from agent.privsep import limits


def check(place: Place) -> Iterator[Finding]:
    if not place.groups:
        yield skipped("lvm", "No back end of this host is on LVM.")
        return
    found = [*_set_up(place), *_devices(place)]
    yield from found
    if not found:
        yield ok("lvm", "The programs, limits and udev rules for LVM are in place.")
    if os.geteuid() == 0 and not found:
        yield from _groups(place)
    elif os.geteuid() != 0:
        yield skipped("lvm", "Only root can look at the volume groups.")


def _set_up(place: Place) -> Iterator[Finding]:
    for name in ("lvm", "dmsetup"):
        if not any(os.access(f"{folder}/{name}", os.X_OK) for folder in tools.FOLDERS):
            yield bad("lvm", f"{name} is not installed.", "Install it: apt-get install lvm2 thin-provisioning-tools")
    if not sysfs.has_mapper(place.root / "sys"):
        yield bad("lvm", "Device-mapper is not in the kernel.", "Run: modprobe dm-mod dm-thin-pool")
    if not place.has_udev_rules:
        missing = "The udev rules of Brickyard are missing: what is inside volumes may be activated."
        yield bad("lvm", missing, RULES_REMEDY)
    try:
        allowed = limits.read(place.limits_file).groups
    except FileNotFoundError:
        allowed = ()
    for name, (group, _) in place.groups.items():
        if group not in allowed:
            remedy = f"As root, add it to {place.limits_file}: [lvm] groups = [...]"
            yield bad("lvm", f"The volume group {group} of the back end {name} is not allowed.", remedy)


def _devices(place: Place) -> Iterator[Finding]:
    """What only sysfs tells: foreign activation on top of attachments, and devices left suspended."""
    sys = place.root / "sys"
    groups = {group for group, _ in place.groups.values()}
    for disk in sysfs.disks(sys):
        if not disk.mapper_uuid.startswith("LVM-"):
            continue
        there = sysfs.mapper_named(disk.name, sys)
        below = [sysfs.mapper_named(name, sys) for name in (there.below if there else ())]
        if any(one is not None and one.title.startswith("brickyard-") for one in below):
            message = f"/dev/mapper/{disk.mapper_title} was activated from inside an attached volume."
            yield bad("lvm", message, "Deactivate it (vgchange -an), and install the udev rules of Brickyard.")
        split = lvm.split_title(disk.mapper_title)
        if disk.suspended and split is not None and split[0] in groups:
            remedy = f"If no LVM command runs: lvchange --refresh {split[0]}/{split[1]}"
            yield warning("lvm", f"/dev/mapper/{disk.mapper_title} is suspended: who uses it waits.", remedy)


def _groups(place: Place) -> Iterator[Finding]:
    from agent.backends.config import LvmBackendConfig
    from agent.backends.lvm_report import parse
    from agent.backends.lvm_space import Space
    from agent.privsep import start
    from agent.privsep.client import invoke
    from agent.privsep.lvm import lvm_report

    start.start_direct(limits_file=place.limits_file)
    for name, (group, pool) in place.groups.items():
        try:
            config = LvmBackendConfig(driver="lvm", group=group, pool=pool)
            state = Space(name, config, parse(invoke(lvm_report, group), group)).state()
        except BrickyardError as error:
            yield bad("lvm", str(error), error.remedy)
            continue
        yield _fullness(name, group, state.free_bytes / max(state.total_bytes, 1), state.metadata_percent or 0.0)


def _fullness(name: str, group: str, free: float, metadata: float) -> Finding:
    words = f"The place of the back end {name} ({group}) has {free:.0%} free"
    words += f"; its metadata are {metadata:.0f} % full." if metadata else "."
    remedy = "Add space: vgextend, then lvextend of the pool (its metadata: lvextend --poolmetadatasize)."
    if free < 0.1 or metadata > 80:
        return warning("lvm", words, remedy)
    return ok("lvm", words)
