"""The kernel's NVMe target as configfs shows it to everyone: our subsystems, who may use them, and at which ports.

A volume has a subsystem for each of its consumers: the kernel cuts off a host by ending a subsystem, by nothing less.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from agent.base.ids import is_id
from agent.host import sysfs

CONFIGFS = Path("/sys/kernel/config/nvmet")
PREFIX = "nqn.2026-01.io.brickyard:"
"""Our subsystems: this, the volume's id, and a digest of the consumer's name; that with `_RDMA` before it for those
who come by RDMA. No other one is ever touched."""
_RDMA = "rdma."
NSID = 1
FIRST_PORT, PORTS = 8790, 256
"""Numbers of the ports that we make."""
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Subsystem:
    """One of our subsystems. `device` is the block device behind it; `ready`: its namespace is enabled.

    `portals` as `10.0.0.1:4420`, `[fd00::1]:4420`; `initiators` are the host NQNs that it lets in; `transport` is the
    kernel's word (tcp, rdma).
    """

    volume_id: str
    target: str
    device: str
    ready: bool
    portals: tuple[str, ...]
    initiators: tuple[str, ...]
    transport: str = "tcp"


def nqn(volume_id: str, initiator: str, transport: str = "tcp") -> str:
    """The subsystem by which one consumer reaches a volume."""
    kind = _RDMA if transport == "rdma" else ""
    return f"{PREFIX}{volume_id}:{kind}{hashlib.sha256(initiator.encode()).hexdigest()[:_DIGITS]}"


def available(root: Path = CONFIGFS) -> bool:
    """Whether the kernel's target is loaded and configfs mounted."""
    return root.is_dir()


def volume_of(target: str) -> str | None:
    """The volume of one of our subsystems; None for any other name."""
    ident, _, digits = target.removeprefix(PREFIX).partition(":")
    return ident if target.startswith(PREFIX) and is_id(ident) and digits else None


def subsystems(
    volume_id: str | None = None, root: Path = CONFIGFS, transport: str | None = None
) -> tuple[Subsystem, ...]:
    """All our subsystems, or those of one volume, of one transport, also half made ones."""
    named = ((name, volume_of(name)) for name in sysfs.listed(root / "subsystems"))
    found = [
        (name, volume)
        for name, volume in named
        if volume is not None and volume_id in {None, volume} and transport in {None, _transport(name)}
    ]
    if not found:
        return ()
    ports = {entry: sysfs.listed(root / "ports" / entry / "subsystems") for entry in sysfs.listed(root / "ports")}
    made = []
    for name, volume in found:
        space = root / "subsystems" / name / "namespaces" / str(NSID)
        at = (_address(root / "ports" / port) for port, links in ports.items() if name in links)
        made.append(
            Subsystem(
                volume_id=volume,
                target=name,
                device=device_of(space),
                ready=sysfs.text(space / "enable") == "1",
                portals=tuple(sorted(at)),
                initiators=sysfs.listed(root / "subsystems" / name / "allowed_hosts"),
                transport=_transport(name),
            )
        )
    return tuple(made)


def _transport(target: str) -> str:
    return "rdma" if f":{_RDMA}" in target else "tcp"


def device_of(namespace: Path) -> str:
    """The block device of a namespace; empty while it has none."""
    told = (sysfs.text(namespace / "device_path") or "").strip()
    return "" if told == "(null)" else told


def _address(port: Path) -> str:
    address, service = (sysfs.text(port / name) or "" for name in ("addr_traddr", "addr_trsvcid"))
    return f"[{address}]:{service}" if ":" in address else f"{address}:{service}"
