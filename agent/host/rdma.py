"""RDMA devices as sysfs tells them: adapters for InfiniBand, RoCE or iWARP, and RoCE in software over any Ethernet.

Pure reads, open to every user; the root can be given for tests.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from agent.host import sysfs

NO_DEVICE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL})
"""What the kernel answers where an address is no device's of this host, or none leads to it."""
_ACTIVE = "4"  # `4: ACTIVE`
_ABOVE = "upper_"


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a device (`rxe0`, `mlx5_0`). `links`: network interfaces whose addresses are reached through it."""

    device: str
    number: str
    active: bool
    links: frozenset[str]


def ports(sys: Path = sysfs.SYS) -> tuple[Port, ...]:
    """All of them, by device and number."""
    return tuple(
        Port(name, port, (sysfs.text(device / "ports" / port / "state") or "").startswith(_ACTIVE), _links(device, sys))
        for name in sysfs.listed(sys / "class/infiniband")
        for device in (sys / "class/infiniband" / name,)
        for port in sysfs.listed(device / "ports")
    )


def active(sys: Path = sysfs.SYS) -> bool:
    """Whether this host can reach anybody by RDMA now."""
    return any(port.active for port in ports(sys))


def links(sys: Path = sysfs.SYS) -> frozenset[str]:
    """Network interfaces whose addresses an RDMA device of this host answers for now."""
    return frozenset(name for port in ports(sys) if port.active for name in port.links)


def _links(device: Path, sys: Path) -> frozenset[str]:
    """The interface that a device in software stands on, those of an adapter; VLANs and bonds above them."""
    todo = list(sysfs.listed(device / "device/net"))
    todo += [name for name in ((sysfs.text(device / "parent") or "").strip(),) if name]
    found: set[str] = set()
    while todo:
        found.add(name := todo.pop())
        entries = sysfs.listed(sys / "class/net" / name)
        above = (entry.removeprefix(_ABOVE) for entry in entries if entry.startswith(_ABOVE))
        todo += [each for each in above if each not in found]
    return frozenset(found)
