"""FCP devices on a simulated host: ports appear on a rescan, a unit's disk appears after `unit_add`, or by itself."""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass, field

from agent.host.simulator import SimulatedKernel

_ZFCP = "sys/bus/ccw/drivers/zfcp"


@dataclass(slots=True)
class SimulatedFcp:
    """What the fabric offers: `luns` by port name. `hidden` ports show only after a rescan."""

    kernel: SimulatedKernel
    luns: dict[str, tuple[str, ...]]
    hidden: bool = False
    npiv: bool = False
    lun_scan: bool = False
    disks: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kernel.put("sys/module/zfcp/parameters/allow_lun_scan", "Y" if self.lun_scan else "N")
        (self.kernel.root / "sys/bus/scsi/devices").mkdir(parents=True, exist_ok=True)
        self.kernel.react(rf"{_ZFCP}/([^/]+)/port_rescan", lambda match, text: self._show(match[1]))
        self.kernel.react(rf"{_ZFCP}/([^/]+)/([^/]+)/unit_(add|remove)", self._unit)
        self.kernel.react(r"sys/bus/scsi/devices/([^/]+)/delete", lambda match, text: self._drop(match[1]))

    def add_adapter(self, bus_id: str, port_state: str = "Online") -> None:
        number = len(list((self.kernel.root / _ZFCP).iterdir()))
        host = f"{_ZFCP}/{bus_id}/host{number}/fc_host/host{number}"
        self.kernel.put(f"{_ZFCP}/{bus_id}/online", "1")
        self.kernel.put(f"{_ZFCP}/{bus_id}/failed", "0")
        self.kernel.put(f"{_ZFCP}/{bus_id}/port_rescan")
        self.kernel.put(f"{host}/port_name", f"0xc05076ffe5005{number:03x}")
        self.kernel.put(f"{host}/port_type", "NPIV VPORT" if self.npiv else "NPort (fabric via point-to-point)")
        self.kernel.put(f"{host}/port_state", port_state)
        if not self.hidden:
            self._show(bus_id)

    def set_error(self, bus_id: str, wwpn: str, lun: str, what: str) -> None:
        """`failed` or `access_denied` of a unit (or, with an empty LUN, of its port)."""
        place = f"{_ZFCP}/{bus_id}/{wwpn}" + (f"/{lun}" if lun else "")
        self.kernel.put(f"{place}/{what}", "1")

    def _show(self, bus_id: str) -> None:
        for wwpn, luns in self.luns.items():
            port = f"{_ZFCP}/{bus_id}/{wwpn}"
            if (self.kernel.root / port).is_dir():
                continue
            for name, value in (("failed", "0"), ("access_denied", "0"), ("unit_add", ""), ("unit_remove", "")):
                self.kernel.put(f"{port}/{name}", value)
            self.kernel.emit("add", f"/devices/css0/{bus_id}/rport-{wwpn}", "fc_remote_ports")
            if self.npiv and self.lun_scan:
                for lun in luns:
                    self._appear(bus_id, wwpn, lun)

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

    def _appear(self, bus_id: str, wwpn: str, lun: str) -> None:
        disk = f"sd{'abcdefghijkl'[len(self.disks)]}"
        address = f"{bus_id[-1]}:0:{len(self.disks)}:{int(lun[2:6], 16)}"
        self.disks[address] = (bus_id, wwpn, lun)
        place = f"sys/bus/scsi/devices/{address}"
        for name, value in (("hba_id", bus_id), ("wwpn", wwpn), ("fcp_lun", lun), ("delete", "")):
            self.kernel.put(f"{place}/{name}", value)
        self.kernel.put(f"{place}/block/{disk}/dev", f"8:{16 * len(self.disks)}")
        self.kernel.link(f"sys/block/{disk}", f"{place}/block/{disk}")
        self.kernel.emit("add", f"/devices/css0/{bus_id}/{address}/block/{disk}", "block", disk)

    def _drop(self, address: str) -> None:
        folder = self.kernel.root / "sys/bus/scsi/devices" / address
        disk = next((folder / "block").iterdir()).name
        (self.kernel.sys / "block" / disk).unlink()
        shutil.rmtree(folder)
        del self.disks[address]
        self.kernel.emit("remove", f"/devices/css0/{address}/block/{disk}", "block", disk)
