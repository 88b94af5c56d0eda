"""The kernel's SCSI target (LIO) as configfs shows it to everyone: our targets, who may use them, and who does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.base.ids import is_id
from agent.host import sysfs

CONFIGFS = Path("/sys/kernel/config/target")
PREFIX = "iqn.2026-01.io.brickyard:"
"""Our targets: this and the volume's id, those by iSER with `ISER` behind it. Nothing else is ever touched."""
ISER = ":iser"
Fabric = Literal["iscsi", "iser", "vhost"]
FABRICS: tuple[Fabric, ...] = ("iscsi", "iser", "vhost")
"""By what a volume is offered: each has a target of its own, over the same device."""
HBA = "iblock_8790"
LUN = 0


@dataclass(frozen=True, slots=True)
class Consumer:
    """One initiator that may log in; `connected`: it has."""

    initiator: str
    read_only: bool
    connected: bool


@dataclass(frozen=True, slots=True)
class LioTarget:
    """One of our targets. `device` is the block device behind it; `ready`: it takes log-ins and has its LUN.

    By vhost there are no portals and no consumers: whoever opens it on this host may use it.
    """

    volume_id: str
    target: str
    device: str
    ready: bool
    portals: tuple[str, ...]
    consumers: tuple[Consumer, ...]


def name_of(volume_id: str, fabric: Fabric = "iscsi") -> str:
    """The target's name: an IQN, by vhost `naa.` and 16 hexadecimal digits, which is all that libvirt takes."""
    if fabric == "vhost":
        return _naa(volume_id)
    return PREFIX + volume_id + (ISER if fabric == "iser" else "")


def nexus_of(volume_id: str) -> str:
    """By vhost: the name that the kernel knows the guest's side by."""
    return _naa(f"{volume_id} guest")


def _naa(text: str) -> str:
    """Registered by IEEE for LIO (OUI 001405); what follows is of the text alone."""
    return "naa.5001405" + hashlib.sha256(text.encode()).hexdigest()[:9]


def folder(volume_id: str, fabric: Fabric = "iscsi", root: Path = CONFIGFS) -> Path:
    """Where configfs has the target."""
    return root / ("vhost" if fabric == "vhost" else "iscsi") / name_of(volume_id, fabric)


def stands(volume_id: str, fabric: Fabric = "iscsi", root: Path = CONFIGFS) -> bool:
    """Whether the volume has such a target, be it half made. A name of vhost may be another's: its LUN tells."""
    place = folder(volume_id, fabric, root)
    if fabric != "vhost":
        return place.is_dir()
    lun = _links(place / "tpgt_1/lun" / f"lun_{LUN}")
    return place.is_dir() and all(is_of(one, volume_id) for one in lun)


def is_of(link: Path, volume_id: str) -> bool:
    """Whether a LUN is the volume's device; True when it goes away meanwhile."""
    try:
        return link.readlink().parts[-2:] == (HBA, volume_id)
    except FileNotFoundError:
        return True


def available(root: Path = CONFIGFS) -> bool:
    """Whether the kernel's target is loaded and configfs mounted."""
    return root.is_dir()


def has_vhost(sys: Path = sysfs.SYS) -> bool:
    """Whether the module vhost_scsi is loaded, or built in."""
    return (sys / "class/misc/vhost-scsi").exists()


def portal_name(address: str, port: int) -> str:
    """`10.0.0.1:3260`, `[fd00::1]:3260`: as configfs names them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def targets(root: Path = CONFIGFS, fabric: Fabric = "iscsi") -> tuple[LioTarget, ...]:
    """All our targets of one kind, by volume."""
    found = (target(volume, root, fabric) for volume in _volumes(root, fabric) if is_id(volume))
    return tuple(one for one in found if one is not None)


def _volumes(root: Path, fabric: Fabric) -> list[str]:
    """A name of vhost does not tell its volume; its storage object does, which is there for longer."""
    if fabric == "vhost":
        return [one for one in sorted(_listed(root / "core" / HBA)) if stands(one, fabric, root)]
    names = sorted(entry for entry in _listed(root / "iscsi") if entry.startswith(PREFIX))
    ours = (name.removeprefix(PREFIX) for name in names if name.endswith(ISER) == (fabric == "iser"))
    return [name.removesuffix(ISER) for name in ours]


def target(volume_id: str, root: Path = CONFIGFS, fabric: Fabric = "iscsi") -> LioTarget | None:
    """The target of one volume; None when there is none, not even half made."""
    group = folder(volume_id, fabric, root) / "tpgt_1"
    store = root / "core" / HBA / volume_id
    others = any(stands(volume_id, one, root) for one in FABRICS if one != fabric)
    if not stands(volume_id, fabric, root) and (others or not store.is_dir()):
        return None
    name, device = name_of(volume_id, fabric), device_of(store)
    lun = any(_links(group / "lun" / f"lun_{LUN}"))
    if fabric == "vhost":
        return LioTarget(volume_id, name, device, lun and bool(sysfs.text(group / "nexus")), (), ())
    ready = lun and sysfs.text(group / "enable") == "1"
    consumers = [_consumer(group / "acls" / one) for one in sorted(_listed(group / "acls"))]
    return LioTarget(volume_id, name, device, ready, tuple(sorted(_listed(group / "np"))), tuple(consumers))


def device_of(store: Path) -> str:
    """The block device of a storage object; empty while it has none."""
    return (sysfs.text(store / "udev_path") or "").strip()


def _consumer(folder: Path) -> Consumer:
    read_only = sysfs.text(folder / f"lun_{LUN}" / "write_protect") == "1"
    # Without a session the file says "No active iSCSI Session…"; its first words are the only promise it keeps.
    told = sysfs.text(folder / "info") or "No active"
    return Consumer(folder.name, read_only, not told.startswith("No active"))


def _links(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if entry.is_symlink()]
    except OSError:
        return []


def _listed(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError:
        return ()
