"""Ports of plain Fibre Channel adapters, the array's ports that they see, and the disks behind those, as sysfs has it.

FCP devices of IBM Z stand in the same classes of the kernel; they are `agent.host.fcp`'s and left out here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agent.host import ccw, fcp, scsi
from agent.host.kernel import current
from agent.host.sysfs import text

HOST = re.compile(r"host\d{1,5}")
_REMOTE = re.compile(r"rport-(\d+):(\d+)-(\d+)")
_TARGET = re.compile(r"target(\d+):(\d+):(\d+)")
_NO_TARGET = "-1"


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of this host by its SCSI host (`host3`); `state` is the fabric's word (`Online`, `Linkdown`, …)."""

    host: str
    name: str
    state: str

    @property
    def usable(self) -> bool:
        """Ports without a link, and virtual ports that are set up and not in use, are not."""
        return self.state == "Online"


@dataclass(frozen=True, slots=True)
class ArrayPort:
    """A port of an array as one port of this host sees it. `target` is None while it has not said to be a target."""

    host: str
    wwpn: str
    state: str
    channel: int
    target: int | None

    @property
    def online(self) -> bool:
        return self.state == "Online" and self.target is not None

    def address(self, lun: str) -> str:
        """The SCSI address at which the kernel has a LUN (64 bits, in hexadecimal) of this port."""
        return f"{self.host.removeprefix('host')}:{self.channel}:{self.target}:{fcp.scsi_lun(lun)}"


def host_ports(sys: Path | None = None) -> tuple[HostPort, ...]:
    """All of them, virtual ones and those without a link included."""
    folder = (sys or current().sys) / "class" / "fc_host"
    found = []
    for name in ccw.listed(folder):
        on_channel = any(ccw.BUS_ID.fullmatch(part) for part in (folder / name).resolve().parts)
        if HOST.fullmatch(name) and not on_channel:
            place = folder / name
            found.append(HostPort(name, text(place / "port_name") or "", text(place / "port_state") or "Unknown"))
    return tuple(found)


def array_ports(host: str, wwpn: str, sys: Path | None = None) -> tuple[ArrayPort, ...]:
    """What a port of this host sees under one name, the usable one first; none: the fabric shows no such port."""
    number, sys = host.removeprefix("host"), sys or current().sys
    found = []
    for name in ccw.listed(sys / "class" / "fc_remote_ports"):
        match, place = _REMOTE.fullmatch(name), sys / "class" / "fc_remote_ports" / name
        if match is None or match[1] != number or text(place / "port_name") != wwpn:
            continue
        target = text(place / "scsi_target_id") or _NO_TARGET
        state = text(place / "port_state") or "Unknown"
        found.append(ArrayPort(host, wwpn, state, int(match[2]), int(target) if target.isdigit() else None))
    return tuple(sorted(found, key=lambda one: not one.online))


def disks(host: str, wwpn: str, lun: str) -> tuple[scsi.Disk, ...]:
    """The SCSI disk of one path (none, or one), also of a port that has gone while the kernel still keeps its disk."""
    sys = current().sys
    places: dict[str, None] = {}
    for port in array_ports(host, wwpn):
        if port.target is not None:
            places[port.address(lun)] = None
    for name in ccw.listed(sys / "class" / "fc_transport"):
        match = _TARGET.fullmatch(name)
        if match and f"host{match[1]}" == host and text(sys / "class" / "fc_transport" / name / "port_name") == wwpn:
            places[ArrayPort(host, wwpn, "", int(match[2]), int(match[3])).address(lun)] = None
    there = sys / "class" / "scsi_device"
    return tuple(scsi.disk(address, sys) for address in places if (there / address).exists())


def array_port_of(name: str, sys: Path | None = None) -> str:
    """The port of the array (`0x…`) that a disk (`sda`) is reached by; empty for any other disk."""
    sys = sys or current().sys
    parts = (sys / "block" / name).resolve().parts
    remote = next((part for part in parts if _REMOTE.fullmatch(part)), "")
    return (text(sys / "class" / "fc_remote_ports" / remote / "port_name") or "") if remote else ""
