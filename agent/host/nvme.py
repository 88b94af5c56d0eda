"""NVMe over fabrics as this host's sysfs tells it: subsystems, the controllers that lead to them, their namespaces.

Pure reads, open to every user; the root can be given for tests. Where the kernel gathers paths itself (native
multipath), a namespace is one disk whatever the number of its controllers.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from agent.host import sysfs

FABRICS = frozenset({"tcp", "rdma"})
_CONTROLLER = re.compile(r"nvme\d+")
_DISK = re.compile(r"nvme(\d+)n(\d+)")
_HOST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAMED = "nqn.2014-08.org.nvmexpress:uuid:"
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Controller:
    """One way to a subsystem. `state` as the kernel has it: live, connecting, resetting, deleting, …"""

    name: str
    transport: str
    address: str
    port: int
    state: str

    @property
    def live(self) -> bool:
        return self.state == "live"


@dataclass(frozen=True, slots=True)
class Namespace:
    """One disk. `identity` is the kernel's `wwid` (`uuid.…`, `eui.…`). Bytes."""

    name: str
    nsid: int
    identity: str
    size: int
    diskseq: int | None
    read_only: bool


@dataclass(frozen=True, slots=True)
class Subsystem:
    """One subsystem over a fabric; those of local disks are not told. `name` is the kernel's."""

    target: str
    controllers: tuple[Controller, ...]
    namespaces: tuple[Namespace, ...]
    name: str = ""

    @property
    def live(self) -> bool:
        return any(one.live for one in self.controllers)

    def holds(self, path: str) -> bool:
        """Whether a device at this place below /sys is one of its own."""
        return any(f"/{name}/" in path for name in (self.name, *(one.name for one in self.controllers)))


_places: dict[tuple[Path, str], Path] = {}
"""Where each name was found last: looked at first, so that one of many costs no more than one alone."""


def subsystem(target: str, sys: Path = sysfs.SYS) -> Subsystem | None:
    """The subsystem of that name; None when this host has no controller of it."""
    known = _places.get((sys, target))
    if known is not None and (found := _subsystem_there(known, target, sys)) is not None:
        return found
    for folder in _folders(sys):
        if (found := _subsystem_there(folder, target, sys)) is not None:
            _places[sys, target] = folder
            return found
    _places.pop((sys, target), None)
    return None


def subsystems(sys: Path = sysfs.SYS) -> tuple[Subsystem, ...]:
    """All of them, by the kernel's numbers."""
    named = ((folder, sysfs.text(folder / "subsysnqn")) for folder in _folders(sys))
    told = (_subsystem(folder, target, sys) for folder, target in named if target)
    return tuple(found for found in told if found is not None)


def _folders(sys: Path) -> list[Path]:
    place = sys / "class/nvme-subsystem"
    return [place / name for name in sysfs.listed(place)]


def _subsystem_there(folder: Path, target: str, sys: Path) -> Subsystem | None:
    return _subsystem(folder, target, sys) if sysfs.text(folder / "subsysnqn") == target else None


def _subsystem(folder: Path, target: str, sys: Path) -> Subsystem | None:
    """None where nothing leads to it, or what leads to it is no fabric."""
    below = sysfs.listed(folder)
    names = [name for name in below if _CONTROLLER.fullmatch(name)]
    # One that is just going has no files any more.
    controllers = [one for name in names if (one := _controller(sys / "class/nvme" / name)).transport]
    if not controllers or not all(one.transport in FABRICS for one in controllers):
        return None
    # Without native multipath each controller has a disk of its own.
    places = (below, *(sysfs.listed(sys / "class/nvme" / name) for name in names))
    disks = {name for place in places for name in place if _DISK.fullmatch(name)}
    return Subsystem(target, tuple(controllers), tuple(_namespace(name, sys) for name in sorted(disks)), folder.name)


def target_of(name: str, sys: Path = sysfs.SYS) -> str | None:
    """The subsystem (its NQN) that a namespace (`nvme0n1`) belongs to; None for what is no namespace."""
    return sysfs.text(sys / "block" / name / "device" / "subsysnqn")


def over_fabric(name: str, sys: Path = sysfs.SYS) -> bool:
    """Whether a block device is a namespace that this host reaches over a fabric."""
    return any(name == space.name for one in subsystems(sys) for space in one.namespaces)


def is_going(name: str, sys: Path = sysfs.SYS) -> bool:
    """Whether no controller leads to a namespace any more: whoever has it open keeps it in sight for a moment.

    A local disk has its controller as long as it is there.
    """
    folder = sys / "block" / name / "device"
    own = sysfs.text(folder / "transport")
    controllers = (one for one in sysfs.listed(folder) if _CONTROLLER.fullmatch(one))
    return (
        bool(_DISK.fullmatch(name)) and not own and not any(_controller(folder / one).transport for one in controllers)
    )


def available(root: Path = Path("/"), *fabrics: str) -> bool:
    """Whether this host can reach subsystems by one of these, or by any: the kernel has what it takes loaded."""
    loaded = any((root / f"sys/module/nvme_{name}").is_dir() for name in fabrics or FABRICS)
    return loaded and (root / "dev/nvme-fabrics").exists()


def gathers_paths(sys: Path = sysfs.SYS) -> bool:
    """Whether the kernel makes one disk of all paths to a namespace."""
    return sysfs.text(sys / "module/nvme_core/parameters/multipath") == "Y"


def host_nqn(root: Path = Path("/")) -> str | None:
    """The name by which targets know this host: that of /etc/nvme/hostnqn, else one made of the machine's id."""
    told = sysfs.text(root / "etc/nvme/hostnqn")
    if told and told.strip():
        return told.strip()
    machine = sysfs.text(root / "etc/machine-id")
    return _NAMED + str(uuid.uuid5(uuid.NAMESPACE_OID, f"brickyard nvme {machine}")) if machine else None


def host_id(nqn: str, root: Path = Path("/")) -> str:
    """The UUID that goes with a host's name: newer kernels refuse two for one name."""
    told = (sysfs.text(root / "etc/nvme/hostid") or "").strip().lower()
    if _HOST_ID.fullmatch(told):
        return told
    rest = nqn.removeprefix(_NAMED).lower()
    return rest if _HOST_ID.fullmatch(rest) else str(uuid.uuid5(uuid.NAMESPACE_OID, nqn))


def _controller(folder: Path) -> Controller:
    told = dict(part.split("=", 1) for part in (sysfs.text(folder / "address") or "").strip().split(",") if "=" in part)
    port = told.get("trsvcid", "")
    return Controller(
        name=folder.name,
        transport=(sysfs.text(folder / "transport") or "").strip(),
        address=told.get("traddr", ""),
        port=int(port) if port.isdigit() else 0,
        state=(sysfs.text(folder / "state") or "").strip(),
    )


def _namespace(name: str, sys: Path) -> Namespace:
    folder = sys / "block" / name
    size, number = (sysfs.text(folder / each) or "" for each in ("size", "nsid"))
    return Namespace(
        name=name,
        nsid=int(number) if number.isdigit() else 0,
        identity=(sysfs.text(folder / "wwid") or "").strip(),
        size=int(size) * _SECTOR if size.isdigit() else 0,
        diskseq=sysfs.diskseq(name, sys),
        read_only=sysfs.is_read_only(name, sys),
    )
