"""SCSI disks on a simulated host: what a fabric's LUN looks like once the kernel has it, and a multipath daemon.

With `multipathd` a daemon gathers the disks of one volume to a map, as the real one does by udev's events. Who asks
for a LUN, and how, is told by `agent.host.simulated_zfcp` and `agent.host.simulated_hba`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

from agent.host.simulator import SimulatedKernel

DEVICES = "sys/bus/scsi/devices"
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
if [ "$1 $2" = "del path" ]; then
    for place in {root}/sys/block/dm-*; do
        [ -L "$place/slaves/$3" ] || continue
        rm "$place/slaves/$3" {root}/sys/block/$3/holders/${{place##*/}}
        rmdir "$place/slaves" 2>/dev/null && rm -rf $place {root}/dev/${{place##*/}}
    done
elif [ "$1 $2" = "add path" ]; then
    for place in {root}/sys/block/dm-*; do
        [ "mpath-3$(sed s/naa.// {root}/sys/block/$3/device/wwid)" = "$(cat $place/dm/uuid)" ] || continue
        ln -sfn ../../$3 $place/slaves/$3
        ln -sfn ../../${{place##*/}} {root}/sys/block/$3/holders/${{place##*/}}
    done
fi
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
class SimulatedScsi:
    """`luns` is what the fabric offers, by port name; `disks` says for each address which adapter, port and LUN.

    `mistaken`: the daemon takes the next disk for this volume's, by what it remembers of another one at the address.
    """

    kernel: SimulatedKernel
    luns: dict[str, tuple[str, ...]]
    multipathd: bool = False
    volumes: dict[str, Volume] = field(default_factory=dict)
    disks: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    appeared: int = 0
    mistaken: str = ""

    def __post_init__(self) -> None:
        for place in ("sys/block", DEVICES, "sys/class/scsi_device", "sys/class/fc_remote_ports"):
            (self.kernel.root / place).mkdir(parents=True, exist_ok=True)
        self.kernel.react(rf"{DEVICES}/([^/]+)/delete", lambda match, text: self.drop(match[1]))
        self.kernel.react(rf"{DEVICES}/([^/]+)/rescan", lambda match, text: self._tell(match[1]))
        if self.multipathd:
            self.kernel.put("proc/net/unix", _UNIX)
            for name, script in (("multipath", _FLUSH), ("multipathd", _DAEMON)):
                path = self.kernel.root / "bin" / name
                path.write_text(script.format(root=self.kernel.root))
                path.chmod(0o755)

    def set_state(self, adapter: str, wwpn: str, state: str) -> None:
        """`blocked`, `transport-offline` or `running`: what the disks behind a port say."""
        for address, (owner, port, _) in self.disks.items():
            if (owner, port) == (adapter, wwpn):
                self.kernel.put(f"{DEVICES}/{address}/state", state)

    def drop(self, address: str) -> None:
        """The kernel lets go of a disk."""
        folder = self.kernel.root / DEVICES / address
        disk = next((folder / "block").iterdir()).name
        (self.kernel.root / "sys/class/scsi_device" / address / "device").unlink()
        (self.kernel.root / "sys/class/scsi_device" / address).rmdir()
        for over in (self.kernel.sys / "block").glob(f"dm-*/slaves/{disk}"):
            over.unlink()
        (self.kernel.sys / "block" / disk).unlink()
        (self.kernel.dev / disk).unlink()
        shutil.rmtree(folder.resolve())
        if folder.is_symlink():
            folder.unlink()
        del self.disks[address]
        self.kernel.emit("remove", f"/devices/{address}/block/{disk}", "block", disk)

    def _disk(self, address: str, way: tuple[str, str, str], place: str = "", **attributes: str) -> None:
        """A disk of this address; `place` is where it stands when not below the bus itself."""
        self.appeared += 1
        disk = f"sd{'abcdefghijklmnopqrstuvwxyz'[self.appeared - 1]}"
        self.disks[address] = way
        place = place or f"{DEVICES}/{address}"
        numbers = {"dev": f"8:{16 * self.appeared}", "diskseq": str(self.appeared), "ro": "0"}
        for name, value in (
            ("delete", ""), ("rescan", ""), ("state", "running"), *attributes.items(),
            *((f"block/{disk}/{each}", told) for each, told in numbers.items()),
        ):  # fmt: skip
            self.kernel.put(f"{place}/{name}", value)
        (self.kernel.root / place / "block" / disk / "holders").mkdir()
        self.kernel.link(f"{place}/block/{disk}/device", place)
        if place != f"{DEVICES}/{address}":
            self.kernel.link(f"{DEVICES}/{address}", place)
        self.kernel.link(f"sys/block/{disk}", f"{place}/block/{disk}")
        self.kernel.link(f"sys/class/scsi_device/{address}/device", place)
        self.kernel.put(f"dev/{disk}")
        self._tell(address)
        if self.multipathd:
            self._gather(address, disk)
        self.kernel.emit("add", f"/devices/{address}/block/{disk}", "block", disk, self.appeared)

    def _tell(self, address: str) -> None:
        """What the array says of the volume now: read when a disk appears, and when it is rescanned."""
        volume = self.volumes.setdefault(self.disks[address][2], Volume())
        folder = self.kernel.root / DEVICES / address
        (folder / "wwid").write_text(f"{volume.identity}\n")
        for disk in (folder / "block").iterdir():
            (disk / "size").write_text(f"{volume.size // 512}\n")

    def _gather(self, address: str, disk: str) -> None:
        wwid = self.mistaken or (self.kernel.root / DEVICES / address / "wwid").read_text().strip()
        self.mistaken = ""
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
        self.kernel.link(f"sys/block/{disk}/holders/{over.name}", f"sys/block/{over.name}")
        self.kernel.emit("change", f"/devices/virtual/block/{over.name}", "block", over.name)
