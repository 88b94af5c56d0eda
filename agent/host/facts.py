"""What this host is and how others reach it. Every path can be given another root for tests."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from agent.host import netlink, nvme, rdma, scsi, sysfs

_IQN = re.compile(r"^\s*InitiatorName\s*=\s*(\S+)\s*$", re.MULTILINE)
_WWPN = re.compile(r"^0x([0-9a-f]{16})$")


@dataclass(frozen=True, slots=True)
class Facts:
    """`initiator_iqn` and `nqn` None: not set up, or readable by root alone. `links`: interface to operstate."""

    boot_id: str
    arch: str
    kernel: str
    initiator_iqn: str | None = None
    nqn: str | None = None
    wwpns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()


def host_facts(root: Path = Path("/")) -> Facts:
    """Read all of them: a few small files and one netlink question; a millisecond, no tools, no privileges."""
    system = os.uname()
    return Facts(
        boot_id=boot_id(root),
        arch=system.machine,
        kernel=system.release,
        initiator_iqn=initiator_iqn(root),
        nqn=nvme.host_nqn(root),
        wwpns=wwpns(root),
        addresses=_addresses(),
        links=links(root),
        capabilities=capabilities(root),
    )


def boot_id(root: Path = Path("/")) -> str:
    """The kernel's random id of this boot; empty when proc does not tell."""
    return sysfs.text(root / "proc/sys/kernel/random/boot_id") or ""


def initiator_iqn(root: Path = Path("/")) -> str | None:
    """The iSCSI initiator name, as open-iscsi keeps it."""
    found = _IQN.search(sysfs.text(root / "etc/iscsi/initiatorname.iscsi") or "")
    return found[1] if found else None


def wwpns(root: Path = Path("/")) -> tuple[str, ...]:
    """World-wide port names of the fibre-channel ports, 16 hex digits each."""
    ports = sorted((root / "sys/class/fc_host").glob("host*"))
    names = (_WWPN.match(sysfs.text(port / "port_name") or "") for port in ports)
    return tuple(name[1] for name in names if name)


def links(root: Path = Path("/")) -> dict[str, str]:
    """Interface to state (`up`, `down`, `unknown`, …); without the loopback."""
    found = sorted((root / "sys/class/net").glob("*"))
    states = {link.name: sysfs.text(link / "operstate") for link in found if link.name != "lo"}
    return {name: state for name, state in states.items() if state is not None}


def capabilities(root: Path = Path("/")) -> tuple[str, ...]:
    """What this host can do for volumes: `loop`, `dm-crypt`, `udev`, `multipath`; use `fc`, `iscsi`, `iser`,
    `nvme-tcp`, `nvme-rdma`."""
    sys, dev, proc = root / "sys", root / "dev", root / "proc"
    offers = {
        "dm-crypt": sysfs.has_mapper(sys),
        "fc": (sys / "class/fc_host").is_dir(),
        "iscsi": scsi.iscsid_listens(proc),
        "iser": scsi.iscsid_listens(proc) and (sys / "module/ib_iser").is_dir() and rdma.active(sys),
        "loop": (dev / "loop-control").exists(),
        "multipath": scsi.multipathd_listens(proc),
        "nvme-rdma": nvme.available(root, "rdma") and rdma.active(sys),
        "nvme-tcp": nvme.available(root, "tcp"),
        "udev": (root / "run/udev/control").exists(),
    }
    return tuple(name for name, there in offers.items() if there)


def _addresses() -> tuple[str, ...]:
    try:
        return netlink.reachable_addresses()
    except OSError:
        return ()
