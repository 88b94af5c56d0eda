"""FCP devices on a simulated host: ports appear on a rescan, a unit's disk after `unit_add`, a scan, or by itself."""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass

from agent.host import fcp
from agent.host.simulated_scsi import SimulatedScsi

_ZFCP = "sys/bus/ccw/drivers/zfcp"


@dataclass(slots=True)
class SimulatedFcp(SimulatedScsi):
    """`hidden` ports show only after a rescan."""

    hidden: bool = False
    npiv: bool = False
    lun_scan: bool = False

    def __post_init__(self) -> None:
        SimulatedScsi.__post_init__(self)
        kernel = self.kernel
        kernel.put("sys/module/zfcp/parameters/allow_lun_scan", "Y" if self.lun_scan else "N")
        kernel.react(rf"{_ZFCP}/([^/]+)/port_rescan", lambda match, text: self._show(match[1]))
        kernel.react(rf"{_ZFCP}/([^/]+)/([^/]+)/unit_(add|remove)", self._unit)
        kernel.react(r"sys/class/scsi_host/host([^/]+)/scan", self._scan)

    def add_adapter(self, bus_id: str, port_state: str = "Online") -> None:
        number = len(fcp.every())
        host = f"{_ZFCP}/{bus_id}/host{number}/fc_host/host{number}"
        self.kernel.put(f"{_ZFCP}/{bus_id}/online", "1")
        self.kernel.put(f"{_ZFCP}/{bus_id}/failed", "0")
        self.kernel.put(f"{_ZFCP}/{bus_id}/port_rescan")
        self.kernel.put(f"{host}/port_name", f"0xc05076ffe5005{number:03x}")
        self.kernel.put(f"{host}/port_type", "NPIV VPORT" if self.npiv else "NPort (fabric via point-to-point)")
        self.kernel.put(f"{host}/port_state", port_state)
        self.kernel.put(f"sys/class/scsi_host/host{number}/scan")
        if not self.hidden:
            self._show(bus_id)

    def set_offline(self, bus_id: str) -> None:
        """The FCP device goes offline: its SCSI host and disks vanish, ports and units stay."""
        folder = self.kernel.root / _ZFCP / bus_id
        for address, (owner, _, _) in tuple(self.disks.items()):
            if owner == bus_id:
                self.drop(address)
        for host in folder.glob("host*"):
            shutil.rmtree(host)
        (folder / "online").write_text("0\n")

    def set_error(self, bus_id: str, wwpn: str, lun: str, what: str) -> None:
        """`failed` or `access_denied` of a unit (or, with an empty LUN, of its port)."""
        place = f"{_ZFCP}/{bus_id}/{wwpn}" + (f"/{lun}" if lun else "")
        self.kernel.put(f"{place}/{what}", "1")

    def offer(self, wwpn: str, lun: str) -> None:
        """The array maps one more LUN; a unit that was added before finds it."""
        self.luns[wwpn] = (*self.luns.get(wwpn, ()), lun)
        for unit in (self.kernel.root / _ZFCP).glob(f"*/{wwpn}/{lun}"):
            self._appear(unit.parent.parent.name, wwpn, lun)

    def appear_port(self, bus_id: str, wwpn: str) -> None:
        """A port logs in that was not there before."""
        for name, value in (("failed", "0"), ("access_denied", "0"), ("unit_add", ""), ("unit_remove", "")):
            self.kernel.put(f"{_ZFCP}/{bus_id}/{wwpn}/{name}", value)
        host = next((self.kernel.root / _ZFCP / bus_id).glob("host*")).name.removeprefix("host")
        number = len(list((self.kernel.sys / "class/fc_remote_ports").iterdir()))
        place = f"sys/class/fc_remote_ports/rport-{host}:0-{number}"
        self.kernel.put(f"{place}/port_name", wwpn)
        self.kernel.put(f"{place}/scsi_target_id", str(number))
        self.kernel.emit("add", f"/devices/css0/{bus_id}/rport-{host}:0-{number}", "fc_remote_ports")
        if self.npiv and self.lun_scan:
            for lun in self.luns.get(wwpn, ()):
                self._appear(bus_id, wwpn, lun)

    def _show(self, bus_id: str) -> None:
        for wwpn in self.luns:
            if not (self.kernel.root / _ZFCP / bus_id / wwpn).is_dir():
                self.appear_port(bus_id, wwpn)

    def _unit(self, match: re.Match[str], lun: str) -> None:
        bus_id, wwpn, verb = match.groups()
        unit = self.kernel.root / _ZFCP / bus_id / wwpn / lun
        if verb == "add":
            if unit.is_dir():
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            self.kernel.put(f"{_ZFCP}/{bus_id}/{wwpn}/{lun}/failed", "0")
            if lun in self.luns.get(wwpn, ()):
                self._appear(bus_id, wwpn, lun)
        elif not unit.is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        else:
            shutil.rmtree(unit)

    def _scan(self, match: re.Match[str], text: str) -> None:
        _, target, lun = text.split()
        [port] = (self.kernel.sys / "class/fc_remote_ports").glob(f"rport-{match[1]}:*-{target}")
        wwpn = (port / "port_name").read_text().strip()
        bus_id = next((self.kernel.root / _ZFCP).glob(f"*/host{match[1]}")).parent.name
        for one in self.luns.get(wwpn, ()):
            if fcp.scsi_lun(one) == int(lun) and not fcp.disks(bus_id, wwpn, one):
                self._appear(bus_id, wwpn, one)

    def _appear(self, bus_id: str, wwpn: str, lun: str) -> None:
        address = f"{bus_id[-1]}:0:{self.appeared + 1}:{fcp.scsi_lun(lun)}"
        self._disk(address, (bus_id, wwpn, lun), hba_id=bus_id, wwpn=wwpn, fcp_lun=lun)
