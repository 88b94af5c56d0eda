"""FCP devices on a simulated host: ports appear on a rescan, a unit's disk after `unit_add`, a scan, or by itself.

With `multipathd` a daemon gathers the disks of one volume to a map, as the real one does by udev's events.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass, field

from agent.host import fcp
from agent.host.simulator import SimulatedKernel

_ZFCP = "sys/bus/ccw/drivers/zfcp"
_DEVICES = "sys/bus/scsi/devices"
_UNIX = "0000000000000000: 00000002 00000000 00010000 0001 01 1 @/org/kernel/linux/storage/multipathd"
_FLUSH = """#!/bin/sh
for last; do :; done
for place in {root}/sys/block/dm-*; do
    [ "$(cat $place/dm/name 2>/dev/null)" = "$last" ] || continue
    for path in $place/slaves/*; do rm -f {root}/sys/block/${{path##*/}}/holders/${{place##*/}}; done
    rm -rf $place {root}/dev/${{place##*/}}
done
"""
_DAEMON = """#!/bin/sh
[ "$1" = resize ] || exit 0
for place in {root}/sys/block/dm-*; do
    for path in $place/slaves/*; do cat {root}/sys/block/${{path##*/}}/size >$place/size; done
done
"""


@dataclass(slots=True)
class Volume:
    """What stands behind a LUN: `identity` as the kernel tells it, bytes."""

    identity: str = "naa.60050763000000000000000000000010"
    size: int = 1 << 30


@dataclass(slots=True)
class SimulatedFcp:
    """What the fabric offers: `luns` by port name. `hidden` ports show only after a rescan."""

    kernel: SimulatedKernel
    luns: dict[str, tuple[str, ...]]
    hidden: bool = False
    npiv: bool = False
    lun_scan: bool = False
    multipathd: bool = False
    volumes: dict[str, Volume] = field(default_factory=dict)
    disks: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    appeared: int = 0

    def __post_init__(self) -> None:
        kernel = self.kernel
        kernel.put("sys/module/zfcp/parameters/allow_lun_scan", "Y" if self.lun_scan else "N")
        for place in (_DEVICES, "sys/class/scsi_device", "sys/class/fc_remote_ports"):
            (kernel.root / place).mkdir(parents=True, exist_ok=True)
        kernel.react(rf"{_ZFCP}/([^/]+)/port_rescan", lambda match, text: self._show(match[1]))
        kernel.react(rf"{_ZFCP}/([^/]+)/([^/]+)/unit_(add|remove)", self._unit)
        kernel.react(r"sys/class/scsi_host/host([^/]+)/scan", self._scan)
        kernel.react(rf"{_DEVICES}/([^/]+)/delete", lambda match, text: self.drop(match[1]))
        kernel.react(rf"{_DEVICES}/([^/]+)/rescan", lambda match, text: self._tell(match[1]))
        if self.multipathd:
            kernel.put("proc/net/unix", _UNIX)
            for name, script in (("multipath", _FLUSH), ("multipathd", _DAEMON)):
                path = kernel.root / "bin" / name
                path.write_text(script.format(root=kernel.root))
                path.chmod(0o755)

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

    def set_state(self, bus_id: str, wwpn: str, state: str) -> None:
        """`blocked`, `transport-offline` or `running`: what the disks behind a port say."""
        for address, (owner, port, _) in self.disks.items():
            if (owner, port) == (bus_id, wwpn):
                self.kernel.put(f"{_DEVICES}/{address}/state", state)

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

    def drop(self, address: str) -> None:
        folder = self.kernel.root / _DEVICES / address
        disk = next((folder / "block").iterdir()).name
        shutil.rmtree(self.kernel.root / "sys/class/scsi_device" / address)
        (self.kernel.sys / "block" / disk).unlink()
        (self.kernel.dev / disk).unlink()
        shutil.rmtree(folder)
        del self.disks[address]
        self.kernel.emit("remove", f"/devices/css0/{address}/block/{disk}", "block", disk)

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
        self.appeared += 1
        disk = f"sd{'abcdefghijklmnopqrstuvwxyz'[self.appeared - 1]}"
        address = f"{bus_id[-1]}:0:{self.appeared}:{fcp.scsi_lun(lun)}"
        self.disks[address] = (bus_id, wwpn, lun)
        place = f"{_DEVICES}/{address}"
        for name, value in (
            ("hba_id", bus_id), ("wwpn", wwpn), ("fcp_lun", lun), ("delete", ""), ("rescan", ""), ("state", "running"),
            (f"block/{disk}/dev", f"8:{16 * self.appeared}"), (f"block/{disk}/diskseq", str(self.appeared)),
            (f"block/{disk}/ro", "0"),
        ):  # fmt: skip
            self.kernel.put(f"{place}/{name}", value)
        (self.kernel.root / place / "block" / disk / "holders").mkdir()
        self.kernel.link(f"{place}/block/{disk}/device", place)
        self.kernel.link(f"sys/block/{disk}", f"{place}/block/{disk}")
        self.kernel.link(f"sys/class/scsi_device/{address}/device", place)
        self.kernel.put(f"dev/{disk}")
        self._tell(address)
        if self.multipathd:
            self._gather(address, disk)
        self.kernel.emit("add", f"/devices/css0/{bus_id}/{address}/block/{disk}", "block", disk, self.appeared)

    def _tell(self, address: str) -> None:
        """What the array says of the volume now: read when a disk appears, and when it is rescanned."""
        volume = self.volumes.setdefault(self.disks[address][2], Volume())
        folder = self.kernel.root / _DEVICES / address
        (folder / "wwid").write_text(f"{volume.identity}\n")
        for disk in (folder / "block").iterdir():
            (disk / "size").write_text(f"{volume.size // 512}\n")

    def _gather(self, address: str, disk: str) -> None:
        wwid = (self.kernel.root / _DEVICES / address / "wwid").read_text().strip()
        plain = f"3{wwid.removeprefix('naa.')}"
        maps = sorted((self.kernel.sys / "block").glob("dm-*"))
        over = next((place for place in maps if (place / "dm/name").read_text().strip() == plain), None)
        if over is None:
            name = f"dm-{len(maps)}"
            for what, value in (("dm/name", plain), ("dm/uuid", f"mpath-{plain}"), ("dev", f"253:{len(maps)}")):
                self.kernel.put(f"sys/block/{name}/{what}", value)
            self.kernel.put(f"sys/block/{name}/size", (self.kernel.sys / "block" / disk / "size").read_text().strip())
            self.kernel.put(f"dev/{name}")
            over = self.kernel.sys / "block" / name
        self.kernel.link(f"sys/block/{over.name}/slaves/{disk}", f"sys/block/{disk}")
        self.kernel.link(f"{_DEVICES}/{address}/block/{disk}/holders/{over.name}", f"sys/block/{over.name}")
        self.kernel.emit("change", f"/devices/virtual/block/{over.name}", "block", over.name)
