"""FCP devices of IBM Z (zfcp) as the kernel tells them: adapters, remote ports, units, and the disks behind them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agent.host import ccw, scsi
from agent.host.kernel import current
from agent.host.sysfs import text

WWPN = re.compile(r"0x[0-9a-f]{16}")
LUN = re.compile(r"0x[0-9a-f]{16}")
_NPIV = "NPIV VPORT"


@dataclass(frozen=True, slots=True)
class Adapter:
    """One FCP device that is online at the channel; `port_state` is the fabric's word (`Online`, `Linkdown`, …)."""

    bus_id: str
    port_name: str
    port_type: str
    port_state: str
    failed: bool

    @property
    def usable(self) -> bool:
        return self.port_state == "Online" and not self.failed

    @property
    def npiv(self) -> bool:
        return self.port_type == _NPIV


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a path gives no disk: `where` is the adapter, the port or the unit; `what` the attribute that says so."""

    where: str
    what: str

    @property
    def final(self) -> bool:
        """Nothing changes by waiting; recovery may still end well."""
        return self.what != "in recovery"


def driver_folder() -> Path:
    return current().sys / "bus" / "ccw" / "drivers" / "zfcp"


def adapters() -> tuple[Adapter, ...]:
    """The FCP devices with a SCSI host, by bus id; those set offline have none and are left out."""
    found = (adapter(name) for name in every())
    return tuple(one for one in found if one is not None)


def every() -> tuple[str, ...]:
    """The bus ids of all FCP devices, those set offline included."""
    return tuple(name for name in ccw.listed(driver_folder()) if ccw.BUS_ID.fullmatch(name))


def adapter(bus_id: str) -> Adapter | None:
    folder = driver_folder() / bus_id
    if text(folder / "online") != "1":
        return None
    hosts = [name for name in ccw.listed(folder) if re.fullmatch(r"host\d+", name)]
    fc = folder / hosts[0] / "fc_host" / hosts[0] if hosts else folder
    return Adapter(
        bus_id,
        text(fc / "port_name") or "",
        text(fc / "port_type") or "",
        text(fc / "port_state") or "Offline",
        text(folder / "failed") == "1",
    )


def scans_by_itself(adapter: Adapter) -> bool:
    """Whether the kernel attaches every LUN that the port may see: only NPIV ports, only with the module's consent."""
    allowed = text(current().sys / "module" / "zfcp" / "parameters" / "allow_lun_scan") or "N"
    return adapter.npiv and allowed.strip().upper() in {"Y", "1"}


def scan_place(bus_id: str, wwpn: str) -> tuple[str, int] | None:
    """SCSI host (`host0`) and target number of a port, by which one LUN can be looked at; None while it has none."""
    sys = current().sys
    hosts = [name for name in ccw.listed(driver_folder() / bus_id) if re.fullmatch(r"host\d+", name)]
    for host in hosts:
        for name in ccw.listed(sys / "class" / "fc_remote_ports"):
            place = sys / "class" / "fc_remote_ports" / name
            number = text(place / "scsi_target_id") or ""
            if name.startswith(f"rport-{host[4:]}:") and text(place / "port_name") == wwpn and number.isdigit():
                return host, int(number)
    return None


def scsi_lun(lun: str) -> int:
    """The number by which the SCSI layer knows a 64-bit LUN: 10 for `0x000a000000000000`."""
    raw = bytes.fromhex(lun.removeprefix("0x"))
    return sum((raw[at] << 8 | raw[at + 1]) << (8 * at) for at in range(0, 8, 2))


def port_folder(bus_id: str, wwpn: str) -> Path:
    return driver_folder() / bus_id / wwpn


def has_port(bus_id: str, wwpn: str) -> bool:
    return port_folder(bus_id, wwpn).is_dir()


def units(bus_id: str, wwpn: str) -> tuple[str, ...]:
    """LUNs that were added by hand behind a port."""
    return tuple(name for name in ccw.listed(port_folder(bus_id, wwpn)) if LUN.fullmatch(name))


def disks(bus_id: str, wwpn: str, lun: str) -> tuple[scsi.Disk, ...]:
    """The SCSI disk of one path (none, or one): found by what each disk says of its own path."""
    sys = current().sys
    devices = sys / "bus" / "scsi" / "devices"
    said = ((address, devices / address) for address in ccw.listed(devices))
    return tuple(
        scsi.disk(address, sys)
        for address, place in said
        if (text(place / "hba_id"), text(place / "wwpn"), text(place / "fcp_lun")) == (bus_id, wwpn, lun)
    )


def adapter_of(name: str) -> str:
    """The bus id of the FCP device that a disk (`sda`) is reached by; empty for any other disk."""
    return text(current().sys / "block" / name / "device" / "hba_id") or ""


def troubles(bus_id: str, wwpn: str, lun: str) -> tuple[Trouble, ...]:
    """Every error that adapter, port and unit report now."""
    port = port_folder(bus_id, wwpn)
    places = ((driver_folder() / bus_id, bus_id), (port, f"port {wwpn}"), (port / lun, f"unit {lun}"))
    return tuple(
        Trouble(where, what.replace("_", " "))
        for place, where in places
        for what in ("failed", "access_denied", "in_recovery")
        if text(place / what) == "1"
    )


def path_names(bus_id: str, wwpn: str, lun: str) -> tuple[str, ...]:
    """The three names that distributions give to one path below /dev/disk/by-path."""
    short = int(lun[2:6], 16) if lun.endswith("0" * 12) else None
    decimal = () if short is None else (f"ccw-{bus_id}-fc-{wwpn}-lun-{short}",)
    return (f"ccw-{bus_id}-zfcp-{wwpn}:{lun}", *decimal, f"ccw-{bus_id}-fc-{wwpn}-lun-{lun}")
