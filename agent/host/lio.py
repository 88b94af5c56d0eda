"""The kernel's iSCSI target as configfs shows it to everyone: our targets, who may use them, and who does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.base.ids import is_id
from agent.host import sysfs

CONFIGFS = Path("/sys/kernel/config/target")
PREFIX = "iqn.2026-01.io.brickyard:"
"""Our targets: this and the volume's id, those by iSER with `ISER` behind it. Nothing else is ever touched."""
ISER = ":iser"
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
    """One of our targets. `device` is the block device behind it; `ready`: it takes log-ins and has its LUN."""

    volume_id: str
    target: str
    device: str
    ready: bool
    portals: tuple[str, ...]
    consumers: tuple[Consumer, ...]


def iqn(volume_id: str, *, iser: bool = False) -> str:
    """The target name of a volume; that for consumers by iSER is another one, with consumers and portals of its own."""
    return PREFIX + volume_id + (ISER if iser else "")


def available(root: Path = CONFIGFS) -> bool:
    """Whether the kernel's target is loaded and configfs mounted."""
    return root.is_dir()


def portal_name(address: str, port: int) -> str:
    """`10.0.0.1:3260`, `[fd00::1]:3260`: as configfs names them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def targets(root: Path = CONFIGFS, *, iser: bool = False) -> tuple[LioTarget, ...]:
    """All our targets of one kind, by volume."""
    names = sorted(entry for entry in _listed(root / "iscsi") if entry.startswith(PREFIX))
    volumes = [name.removeprefix(PREFIX).removesuffix(ISER) for name in names if name.endswith(ISER) == iser]
    found = (target(volume, root, iser=iser) for volume in volumes if is_id(volume))
    return tuple(one for one in found if one is not None)


def target(volume_id: str, root: Path = CONFIGFS, *, iser: bool = False) -> LioTarget | None:
    """The target of one volume; None when there is none, not even half made."""
    group = root / "iscsi" / iqn(volume_id, iser=iser) / "tpgt_1"
    store = root / "core" / HBA / volume_id
    others = (root / "iscsi" / iqn(volume_id, iser=not iser)).is_dir()
    if not group.parent.is_dir() and (others or not store.is_dir()):
        return None
    ready = sysfs.text(group / "enable") == "1" and any(_links(group / "lun" / f"lun_{LUN}"))
    consumers = [_consumer(group / "acls" / name) for name in sorted(_listed(group / "acls"))]
    portals = tuple(sorted(_listed(group / "np")))
    return LioTarget(volume_id, iqn(volume_id, iser=iser), device_of(store), ready, portals, tuple(consumers))


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
