"""Verbs on logical volumes, by the program `lvm`: only in the groups that the limits allow, only on names of ours.

Each verb looks first and treats "already so" as success. A volume is never activated by a mere scan (activation is
skipped unless asked for), and a new one is not active. Bytes are exact: what LVM rounds up stays unused.
"""

from __future__ import annotations

import re
from typing import Any

from agent.host import lvm as names
from agent.host import sysfs
from agent.privsep import checks
from agent.privsep.contexts import lvm as context
from agent.privsep.contexts import privileged
from agent.privsep.errors import DeviceForeign, DeviceHeld, LvmFailed, VerbRefused, VolumeMissing
from agent.privsep.lvmtool import forget, lvm, rows

_BYTES = ("--reportformat", "json", "--units", "b", "--nosuffix")
_COLUMNS = "lv_uuid,lv_name,lv_size,lv_attr,lv_tags,lv_layout,pool_lv,origin,data_percent,metadata_percent,lv_when_full"
_REPORT = {
    "vg": "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_missing_pv_count",
    "pv": "pv_name,pv_missing",
    "lv": f"{_COLUMNS},lv_metadata_size",
    "seg": "lv_uuid",
    "pvseg": "lv_uuid",
}
_LARGE_ENOUGH = re.compile(r"matches existing size|not larger than existing size|No size change")
# Old content of the disk is the caller's to overwrite: LVM would only clear the first sectors.
_PLAIN = ("--yes", "--wipesignatures", "n", "--zero", "n")


@privileged(context)
def lvm_report(group: str) -> str:
    """All of the group in one report, as LVM's JSON (`lvm fullreport`). GroupMissing, LvmUnavailable, LvmFailed."""
    name = checks.group(group)
    chosen = [word for kind, columns in _REPORT.items() for word in ("--configreport", kind, "-o", columns)]
    report = lvm(name, "fullreport", [*_BYTES, *chosen, name])
    if any(row["vg_missing_pv_count"] != "0" for row in rows(report, "vg")):
        # A device may have been added to the group since its devices were looked for.
        forget(name)
        report = lvm(name, "fullreport", [*_BYTES, *chosen, name])
    return report


@privileged(context)
def lvm_show(group: str, part: str, ident: str) -> dict[str, Any] | None:
    """{size, exact (bytes), tags, pool, uuid} of one volume; None when there is none."""
    return _show(checks.group(group), checks.logical(part, ident))


@privileged(context)
def lvm_create(group: str, pool: str | None, part: str, ident: str, size: int) -> bool:
    """A new volume of `size` bytes, not active: thin in `pool`, else thick, whose content is not defined.

    False when there is one of that name already. GroupFull, GroupMissing.
    """
    vg, name, exact = checks.group(group), checks.logical(part, ident), checks.size(size)
    where = ["-L", f"{exact}b", *_PLAIN]
    if pool is not None:
        where = ["-V", f"{exact}b", "--yes", "--thinpool", checks.foreign(pool, "thin pool")]
    return _made(vg, name, [*where, *_inactive(exact), "-n", name, vg])


@privileged(context)
def lvm_snapshot(group: str, source: tuple[str, str], part: str, ident: str, exact: int) -> bool:
    """A thin volume with the content that the thin volume `source` (part, id) of `exact` bytes has now; not active.

    False when there is one of that name already. VolumeMissing, GroupFull.
    """
    vg, name, size = checks.group(group), checks.logical(part, ident), checks.size(exact)
    origin = checks.logical(*source)
    return _made(vg, name, ["--yes", "-s", *_inactive(size), "-n", name, f"{vg}/{origin}"])


@privileged(context)
def lvm_extend(group: str, part: str, ident: str, size: int) -> bool:
    """Make room for `size` bytes (`lvm_settle` notes them); False when there is as much. GroupFull, VolumeMissing."""
    vg, name, exact = checks.group(group), checks.logical(part, ident), checks.size(size)
    try:
        lvm(vg, "lvextend", ["--yes", "-L", f"{exact}b", f"{vg}/{name}"], name=name)
    except LvmFailed as error:
        if _LARGE_ENOUGH.search(str(error)):
            return False
        raise
    return True


@privileged(context)
def lvm_settle(group: str, part: str, ident: str, sizes: tuple[int, int], zeroed: bool) -> None:
    """Note that the volume, which had the first of `sizes` bytes, now has the second, and with `zeroed` that all of it
    that was not written since reads as zeros."""
    vg, name = checks.group(group), checks.logical(part, ident)
    old, new = (checks.size(size) for size in sizes)
    changes = ["--addtag", names.TAG, "--addtag", f"{names.BYTES_TAG}{new}"]
    if old != new:
        changes += ["--deltag", f"{names.BYTES_TAG}{old}"]
    if checks.flag(zeroed, "zeroed"):
        changes += ["--addtag", names.ZEROED_TAG]
    lvm(vg, "lvchange", [*changes, f"{vg}/{name}"], name=name)


@privileged(context)
def lvm_rename(group: str, part: str, ident: str, to: str) -> bool:
    """Make it another part (`partial` to `volume`); False when that is so already. VolumeMissing."""
    vg, name, new = checks.group(group), checks.logical(part, ident), checks.logical(to, ident)
    try:
        lvm(vg, "lvrename", [vg, name, new], name=name)
    except VolumeMissing:
        if _show(vg, new) is None:
            raise
        return False
    return True


@privileged(context)
def lvm_adopt(group: str, name: str, part: str, ident: str, size: int) -> bool:
    """Take in the foreign volume `name` of `size` bytes under a name of ours; False when that was done before.

    Its name is kept as a tag. VolumeMissing, DeviceHeld when it is in use.
    """
    vg, old, new = checks.group(group), checks.foreign(name, "volume"), checks.logical(part, ident)
    exact = checks.size(size)
    if _show(vg, new) is not None:
        return False
    there = active(vg, old)
    if there is not None:
        users = sysfs.users_of(there.name)
        if users:
            raise DeviceHeld(device=f"{vg}/{old}", holders=", ".join(users))
        deactivate(vg, old)
    tags = [
        word for tag in (names.TAG, f"{names.BYTES_TAG}{exact}", names.NAME_TAG + old) for word in ("--addtag", tag)
    ]
    lvm(vg, "lvchange", [*tags, "--setactivationskip", "y", f"{vg}/{old}"], name=old)
    lvm(vg, "lvrename", [vg, old, new], name=old)
    return True


@privileged(context)
def lvm_release(group: str, part: str, ident: str, name: str) -> bool:
    """Let a volume go, with its data, under the foreign `name`; False when that was done before. VolumeMissing."""
    vg, old, new = checks.group(group), checks.logical(part, ident), checks.foreign(name, "volume")
    there = _show(vg, old)
    if there is None:
        if _show(vg, new) is None:
            raise VolumeMissing(noun="logical volume", id=old, group=vg, name=old)
        return False
    ours = [tag for tag in there["tags"].split(",") if tag.startswith(names.TAG)]
    tags = [word for tag in ours for word in ("--deltag", tag)]
    lvm(vg, "lvchange", [*tags, "--setactivationskip", "n", f"{vg}/{old}"], name=old)
    lvm(vg, "lvrename", [vg, old, new], name=old)
    return True


@privileged(context)
def lvm_remove(group: str, parts: tuple[str, ...], ident: str) -> None:
    """Remove what there is of these parts. DeviceHeld when something has one open."""
    vg, chosen = checks.group(group), [checks.logical(part, ident) for part in parts]
    wanted = " || ".join(f"lv_name={name}" for name in chosen)
    if not chosen:
        raise VerbRefused(reason="no part is named")
    lvm(vg, "lvremove", ["--yes", "--select", wanted, vg], name=chosen[-1])


@privileged(context)
def lvm_activate(group: str, part: str, ident: str) -> dict[str, Any]:
    """Activate exactly this one: {device (`/dev/dm-4`), uuid, size (bytes)}. VolumeMissing, DeviceForeign."""
    return activate(checks.group(group), checks.logical(part, ident))


@privileged(context)
def lvm_deactivate(group: str, part: str, ident: str) -> bool:
    """Let its device go; False when there was none. DeviceHeld when something has it open."""
    return deactivate(checks.group(group), checks.logical(part, ident))


@privileged(context)
def lvm_resume(group: str) -> list[str]:
    """Wake what a command that was killed left suspended; the names of those volumes."""
    vg = checks.group(group)
    woken = []
    for disk in sysfs.disks():
        found = names.split_title(disk.mapper_title.removesuffix("-tpool"))
        if not (disk.suspended and disk.mapper_uuid.startswith("LVM-")) or found is None or found[0] != vg:
            continue
        if names.is_plain_name(found[1]):
            # It waits for the group's lock first, so a command that has reason to suspend is not disturbed.
            lvm(vg, "lvchange", ["--refresh", f"{vg}/{found[1]}"], name=found[1])
            woken.append(found[1])
    return woken


@privileged(context)
def lvm_pool(group: str, pool: str, when_full: str) -> None:
    """Choose what a full thin pool does with writes: `error` at once, or `queue` them for a minute."""
    vg, name = checks.group(group), checks.foreign(pool, "thin pool")
    if when_full not in {"error", "queue"}:
        raise VerbRefused(reason="a full pool can `error` or `queue`")
    lvm(vg, "lvchange", ["--errorwhenfull", "y" if when_full == "error" else "n", f"{vg}/{name}"], name=name)


@privileged(context)
def lvm_grow_pool(group: str, pool: str, part: str, more: int) -> None:
    """Add `more` bytes of the group to the thin pool's `data` or `metadata`. GroupFull."""
    vg, name, count = checks.group(group), checks.foreign(pool, "thin pool"), checks.size(more)
    if part not in {"data", "metadata"}:
        raise VerbRefused(reason="a pool has `data` and `metadata`")
    option = ["-L", f"+{count}b"] if part == "data" else ["--poolmetadatasize", f"+{count}b"]
    lvm(vg, "lvextend", ["--yes", *option, f"{vg}/{name}"], name=name)


def activate(vg: str, name: str) -> dict[str, Any]:
    """See `lvm_activate`; the names are checked."""
    there = active(vg, name)
    if there is None:
        lvm(vg, "lvchange", ["-ay", "-K", f"{vg}/{name}"], name=name)
        there = active(vg, name)
    if there is None:
        raise LvmFailed(action="activate", group=vg, name=name, reason="the kernel shows no device afterwards")
    return {"device": f"/dev/{there.name}", "uuid": there.uuid, "size": there.size}


def deactivate(vg: str, name: str) -> bool:
    """See `lvm_deactivate`; the names are checked."""
    if active(vg, name) is None:
        return False
    lvm(vg, "lvchange", ["-an", f"{vg}/{name}"], name=name)
    return True


def active(vg: str, name: str) -> sysfs.MapperDevice | None:
    """The volume's device as the kernel shows it. DeviceForeign when another device has its name."""
    title = names.mapper_title(vg, name)
    found = sysfs.mapper_device(title)
    if found is not None and not found.uuid.startswith("LVM-"):
        raise DeviceForeign(device=f"/dev/mapper/{title}", reason="it is not a logical volume")
    return found


def _inactive(exact: int) -> list[str]:
    return ["-an", "-ky", "--addtag", names.TAG, "--addtag", f"{names.BYTES_TAG}{exact}"]


def _show(vg: str, name: str) -> dict[str, Any] | None:
    try:
        report = lvm(vg, "lvs", [*_BYTES, "-o", _COLUMNS, f"{vg}/{name}"], name=name)
    except VolumeMissing:
        return None
    found = next((row for row in rows(report, "lv") if row["lv_name"] == name), None)
    if found is None:
        return None
    size = int(found["lv_size"])
    return {
        "size": size,
        "exact": names.exact_bytes(found["lv_tags"], size),
        "tags": found["lv_tags"],
        "pool": found["pool_lv"],
        "uuid": found["lv_uuid"],
    }


def _made(vg: str, name: str, arguments: list[str]) -> bool:
    try:
        lvm(vg, "lvcreate", arguments, name=name)
    except LvmFailed as error:
        if "already exists" in str(error):
            return False
        raise
    return True
