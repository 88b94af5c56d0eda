"""Plain Fibre Channel adapters on a simulated host: ports that come and go, LUNs looked at by their address.

As on real adapters, the kernel takes in what a port shows when it logs in (`scans`); what the array maps later comes by
a write to the SCSI host's `scan`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from agent.host import fcp
from agent.host.simulated_scsi import SimulatedScsi

_PORTS = "sys/class/fc_remote_ports"


@dataclass(slots=True)
class SimulatedHbas(SimulatedScsi):
    """`hidden` holds ports (host, port name) that do not log in."""

    scans: bool = True
    hidden: set[tuple[str, str]] = field(default_factory=set)
    scanned: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        SimulatedScsi.__post_init__(self)
        self.kernel.react(r"sys/class/scsi_host/(host[^/]+)/scan", self._scan)

    def add_host(self, host: str, port_state: str = "Online") -> None:
        """A port of this host; it sees what the fabric offers if it has a link."""
        place = f"sys/devices/pci0000:00/{host}"
        name = f"0x2100000e1e0000{int(host[4:]):02x}"
        for attribute, value in (("port_name", name), ("port_state", port_state), ("port_type", "NPort (fabric)")):
            self.kernel.put(f"{place}/fc_host/{host}/{attribute}", value)
        self.kernel.link(f"sys/class/fc_host/{host}", f"{place}/fc_host/{host}")
        self.kernel.put(f"sys/class/scsi_host/{host}/scan")
        for wwpn in self.luns if port_state == "Online" else ():
            if (host, wwpn) not in self.hidden:
                self.log_in(host, wwpn)

    def log_in(self, host: str, wwpn: str, target: bool = True) -> None:
        """A port of the array is there now; without `target` it has not said to be one."""
        number = len(list((self.kernel.root / _PORTS).glob(f"rport-{host[4:]}:*")))
        rport = f"rport-{host[4:]}:0-{number}"
        for attribute, value in (
            ("port_name", wwpn), ("port_state", "Online"), ("scsi_target_id", str(number) if target else "-1"),
        ):  # fmt: skip
            self.kernel.put(f"{_PORTS}/{rport}/{attribute}", value)
        self.kernel.emit("add", f"/devices/pci0000:00/{host}/{rport}", "fc_remote_ports")
        for lun in self.luns.get(wwpn, ()) if self.scans and target else ():
            self._appear(host, wwpn, rport, lun)

    def lose(self, host: str, wwpn: str, state: str = "Blocked") -> None:
        """The link to a port is gone; with `Not Present` for good, and the kernel drops its disks."""
        place = self._rport(host, wwpn)
        self.kernel.put(f"{_PORTS}/{place}/port_state", state)
        self.set_state(host, wwpn, "blocked" if state == "Blocked" else "transport-offline")
        for address, (owner, port, _) in tuple(self.disks.items()):
            if state == "Not Present" and (owner, port) == (host, wwpn):
                self.drop(address)

    def come_back(self, host: str, wwpn: str) -> None:
        """The link to a port is there again; the kernel looks at its LUNs."""
        place = self._rport(host, wwpn)
        self.kernel.put(f"{_PORTS}/{place}/port_state", "Online")
        self.set_state(host, wwpn, "running")
        for lun in self.luns.get(wwpn, ()) if self.scans else ():
            self._appear(host, wwpn, place, lun)

    def _rport(self, host: str, wwpn: str) -> str:
        known = (self.kernel.root / _PORTS).glob(f"rport-{host[4:]}:*")
        return next(place.name for place in known if (place / "port_name").read_text().strip() == wwpn)

    def _scan(self, match: re.Match[str], text: str) -> None:
        self.scanned.append((match[1], text))
        channel, target, number = text.split()
        rport = f"rport-{match[1][4:]}:{channel}-{target}"
        wwpn = (self.kernel.root / _PORTS / rport / "port_name").read_text().strip()
        for lun in self.luns.get(wwpn, ()):
            if fcp.scsi_lun(lun) == int(number):
                self._appear(match[1], wwpn, rport, lun)

    def _appear(self, host: str, wwpn: str, rport: str, lun: str) -> None:
        channel, _, target = rport.partition(":")[2].partition("-")
        address = f"{host[4:]}:{channel}:{target}:{fcp.scsi_lun(lun)}"
        if address not in self.disks:
            place = f"sys/devices/pci0000:00/{host}/{rport}/target{address.rpartition(':')[0]}/{address}"
            self._disk(address, (host, wwpn, lun), place)
