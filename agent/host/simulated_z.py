"""Devices of IBM Z on a simulated host: DASDs and FCP devices that answer writes as the emulated 3390 and zfcp do."""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass, field

from agent.host.simulator import SimulatedKernel

_BYTES_PER_CYLINDER = 15 * 12 * 4096
_SECTOR = 512
_FORMATTER = """#!/bin/sh
for last; do :; done
case "$last" in {device}) ;; *) echo "dasdfmt: no such device $last" >&2; exit 1;; esac
if [ -e {root}/held ]; then rm {root}/held; echo "dasdfmt: Disk in use!"; exit 1; fi
if [ -e {root}/unformattable ]; then echo "dasdfmt: the ioctl call to format tracks failed"; exit 1; fi
for cylinder in 25 50 75 100; do printf 'cyl %7d of %7d |%3d%%\\n' $cylinder 100 $cylinder; done
echo {sectors} > {block}/size
echo online > {folder}/status
"""


@dataclass(slots=True)
class SimulatedDasd:
    """`open_count` above 0 makes the kernel say busy; `formatted` survives going offline."""

    bus_id: str
    uid: str
    formatted: bool
    cylinders: int = 100
    ignored: bool = True
    open_count: int = 0
    present: bool = True


@dataclass(slots=True)
class SimulatedZ:
    """Lays the channel subsystem into `kernel`. The first to come online is `dasda`, and keeps that name."""

    kernel: SimulatedKernel
    dasds: dict[str, SimulatedDasd] = field(default_factory=dict)
    appeared: int = 0
    numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kernel = self.kernel
        for place in ("sys/bus/ccw/devices", "sys/bus/ccw/drivers/dasd-eckd", "sys/bus/ccw/drivers/zfcp", "sys/block"):
            (kernel.root / place).mkdir(parents=True)
        kernel.put("proc/cio_ignore")
        kernel.put("proc/self/mountinfo")
        kernel.react(r"proc/cio_ignore", lambda match, text: self._ignore(text))
        kernel.react(r"sys/bus/ccw/devices/([^/]+)/(online|safe_offline)", self._switch)

    def add(self, dasd: SimulatedDasd) -> SimulatedDasd:
        self.dasds[dasd.bus_id] = dasd
        if not dasd.ignored:
            self._appear(dasd)
        self._write_ignored()
        return dasd

    def detach(self, bus_id: str) -> None:
        """A surprise removal: the device stays, online stays 1, only its availability tells."""
        self.dasds[bus_id].present = False
        self._set(bus_id, "availability", "no device")
        self.kernel.emit("move", f"/devices/css0/defunct/{bus_id}", "ccw")

    def give_back(self, bus_id: str) -> None:
        self.dasds[bus_id].present = True
        self._set(bus_id, "availability", "good")
        self.kernel.emit("move", f"/devices/css0/{bus_id}", "ccw")

    def _ignore(self, text: str) -> None:
        verb, _, bus_id = text.partition(" ")
        dasd = self.dasds.get(bus_id)
        if verb == "free" and dasd is not None:
            dasd.ignored = False
            self._appear(dasd)
        elif verb == "add" and dasd is not None:
            dasd.ignored = True
        elif verb == "purge":
            for one in self.dasds.values():
                if one.ignored and not self._disk(one.bus_id):
                    shutil.rmtree(self.kernel.sys / "bus/ccw/devices" / one.bus_id, ignore_errors=True)
        self._write_ignored()

    def _write_ignored(self) -> None:
        self.kernel.put("proc/cio_ignore", "\n".join(one.bus_id for one in self.dasds.values() if one.ignored))

    def _appear(self, dasd: SimulatedDasd) -> None:
        for name, value in (
            ("online", "0"), ("availability", "good"), ("devtype", "3390/02"), ("cutype", "3990/c2"),
            ("status", "unknown"), ("uid", ""), ("readonly", "0"), ("safe_offline", ""),
        ):  # fmt: skip
            self._set(dasd.bus_id, name, value)
        self.kernel.link(f"sys/bus/ccw/devices/{dasd.bus_id}/driver", "sys/bus/ccw/drivers/dasd-eckd")
        self.kernel.emit("add", f"/devices/css0/{dasd.bus_id}", "ccw")

    def _switch(self, match: re.Match[str], text: str) -> None:
        dasd = self.dasds[match[1]]
        if match[2] == "online" and text == "1":
            self._go_online(dasd)
        else:
            self._go_offline(dasd)

    def _go_online(self, dasd: SimulatedDasd) -> None:
        if not dasd.present:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.appeared += 1
        number = self.numbers.setdefault(dasd.bus_id, len(self.numbers))
        disk = f"dasd{'abcdefgh'[number]}"
        block = f"sys/bus/ccw/devices/{dasd.bus_id}/block/{disk}"
        sectors = dasd.cylinders * _BYTES_PER_CYLINDER // _SECTOR
        self.kernel.put(f"{block}/size", str(sectors if dasd.formatted else 0))
        self.kernel.put(f"{block}/diskseq", str(self.appeared))
        self.kernel.put(f"{block}/dev", f"94:{4 * number}")
        self.kernel.link(f"sys/block/{disk}", block)
        self.kernel.link(f"{block}/device", f"sys/bus/ccw/devices/{dasd.bus_id}")
        self._set(dasd.bus_id, "online", "1")
        self._set(dasd.bus_id, "uid", dasd.uid)
        self._set(dasd.bus_id, "status", "online" if dasd.formatted else "unformatted")
        self._offer_formatter(dasd, disk, sectors)
        path = f"/devices/css0/{dasd.bus_id}/block/{disk}"
        self.kernel.emit("add", path, "block", disk, self.appeared)
        self.kernel.emit("change", path, "block", disk, self.appeared)

    def _go_offline(self, dasd: SimulatedDasd) -> None:
        if dasd.open_count:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        disk = self._disk(dasd.bus_id)
        if disk:
            folder = self.kernel.sys / "bus/ccw/devices" / dasd.bus_id
            dasd.formatted = dasd.formatted or (folder / "status").read_text().strip() == "online"
            (self.kernel.sys / "block" / disk).unlink()
            shutil.rmtree(folder / "block")
            self._set(dasd.bus_id, "online", "0")
            self._set(dasd.bus_id, "status", "unknown")
            self._set(dasd.bus_id, "uid", "")
            self.kernel.emit("remove", f"/devices/css0/{dasd.bus_id}/block/{disk}", "block", disk)

    def _offer_formatter(self, dasd: SimulatedDasd, disk: str, sectors: int) -> None:
        folder = self.kernel.sys / "bus/ccw/devices" / dasd.bus_id
        script = _FORMATTER.format(
            device=f"/dev/{disk}", root=self.kernel.root, sectors=sectors, block=folder / "block" / disk, folder=folder
        )
        path = self.kernel.root / "bin" / "dasdfmt"
        path.write_text(script)
        path.chmod(0o755)

    def _disk(self, bus_id: str) -> str:
        found = sorted((self.kernel.sys / "bus/ccw/devices" / bus_id / "block").glob("dasd*"))
        return found[0].name if found else ""

    def _set(self, bus_id: str, name: str, value: str) -> None:
        self.kernel.put(f"sys/bus/ccw/devices/{bus_id}/{name}", value)
