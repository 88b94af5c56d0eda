"""SCSI disks and iSCSI sessions as sysfs tells them: addresses, states, and what a disk says of its identity.

Pure reads, open to every user; the root can be given for tests.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from agent.host import sysfs

_SESSION = re.compile(r"session(\d+)")
_ADDRESS = re.compile(r"(\d+):(\d+):(\d+):(\d+)")
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Disk:
    """One SCSI disk. `address` is host:channel:target:LUN; `name` is `sda`, empty before the kernel gave it one.

    `identity` is the kernel's `wwid` (`naa.…`), `serial` page 80 of its vital product data; empty: not told. Bytes.
    """

    address: str
    name: str
    identity: str
    serial: str
    state: str
    size: int
    diskseq: int | None

    @property
    def lun(self) -> int:
        return int(self.address.rsplit(":", 1)[1])


@dataclass(frozen=True, slots=True)
class Session:
    """One iSCSI session of this host. `state` as the kernel has it: LOGGED_IN, FAILED, FREE."""

    number: int
    target: str
    state: str
    address: str
    port: int
    host: int
    target_id: int
    disks: tuple[Disk, ...]

    def disk(self, lun: int) -> Disk | None:
        return next((disk for disk in self.disks if disk.lun == lun), None)

    @property
    def healthy(self) -> bool:
        return self.state == "LOGGED_IN"

    def transport(self, sys: Path = sysfs.SYS) -> str:
        """By what it really goes, in the words of open-iscsi: tcp, iser, …; empty: not told."""
        driver = sysfs.text(sys / "class/scsi_host" / f"host{self.host}" / "proc_name") or ""
        return driver.removeprefix("iscsi_")

    def interface(self, sys: Path = sysfs.SYS) -> str:
        """By which of open-iscsi's interfaces it was made; `default` also where the kernel does not tell."""
        return sysfs.text(sys / "class/iscsi_session" / f"session{self.number}" / "ifacename") or "default"


def sessions(target: str | None = None, sys: Path = sysfs.SYS) -> tuple[Session, ...]:
    """All sessions, or those to one target, by number."""
    found = []
    for entry in sysfs.listed(sys / "class/iscsi_session"):
        match = _SESSION.fullmatch(entry)
        if match is None:
            continue
        folder = f"{sys}/class/iscsi_session/{entry}"
        name = sysfs.text(f"{folder}/targetname")
        if name is not None and target in {None, name}:
            session = _session(int(match[1]), name, folder, sys)
            if session is not None:
                found.append(session)
    return tuple(sorted(found, key=lambda session: session.number))


def session_at(target: str, place: tuple[str, int], sys: Path = sysfs.SYS) -> Session | None:
    """The session to a target at one place (address in its plainest form, port), whatever its state."""
    return next((one for one in sessions(target, sys) if (one.address, one.port) == place), None)


def session_of(name: str, sys: Path = sysfs.SYS) -> Session | None:
    """The session that a disk (`sda`) came by; None for one that came another way."""
    for part in (sys / "block" / name).resolve().parts:
        if match := _SESSION.fullmatch(part):
            return session(int(match[1]), sys)
    return None


def target_of(name: str, sys: Path = sysfs.SYS) -> str | None:
    """The iSCSI target that a disk (`sda`) came from, whatever its session is like; None: it came another way."""
    parts = (part for part in (sys / "block" / name).resolve().parts if _SESSION.fullmatch(part))
    return next((sysfs.text(sys / "class/iscsi_session" / part / "targetname") for part in parts), None)


def session(number: int, sys: Path = sysfs.SYS) -> Session | None:
    folder = sys / "class/iscsi_session" / f"session{number}"
    target = sysfs.text(folder / "targetname")
    return _session(number, target, folder, sys) if target is not None else None


def _session(number: int, target: str, folder: Path | str, sys: Path) -> Session | None:
    device = os.path.realpath(f"{folder}/device")
    host = device.split("/")[-2].removeprefix("host")
    if not host.isdigit():
        return None
    told = _number(sysfs.text(f"{folder}/target_id"))
    connection = f"{sys}/class/iscsi_connection/connection{number}:0"
    disks = [
        disk(entry, sys)
        for place in sysfs.listed(device)
        if place.startswith("target")
        for entry in sysfs.listed(f"{device}/{place}")
        if _ADDRESS.fullmatch(entry)
    ]
    return Session(
        number=number,
        target=target,
        state=sysfs.text(f"{folder}/state") or "",
        address=sysfs.text(f"{connection}/persistent_address") or "",
        port=_number(sysfs.text(f"{connection}/persistent_port")) or 0,
        host=int(host),
        target_id=told if told is not None and told < (1 << 31) else 0,
        disks=tuple(disks),
    )


def disk(address: str, sys: Path = sysfs.SYS) -> Disk:
    """The disk at an address, as far as it is there."""
    folder = f"{sys}/class/scsi_device/{address}/device"
    names = sysfs.listed(f"{folder}/block")
    name = names[0] if names else ""
    return Disk(
        address=address,
        name=name,
        identity=(sysfs.text(f"{folder}/wwid") or "").strip(),
        serial=unit_serial(_bytes(f"{folder}/vpd_pg80")),
        state=sysfs.text(f"{folder}/state") or "",
        size=(_number(sysfs.text(f"{folder}/block/{name}/size")) or 0) * _SECTOR if name else 0,
        diskseq=_number(sysfs.text(f"{folder}/block/{name}/diskseq")) if name else None,
    )


def unit_serial(page: bytes) -> str:
    """The serial number of a vital product data page 80; empty for anything else."""
    if len(page) < 4 or page[1] != 0x80:
        return ""
    length = int.from_bytes(page[2:4], "big")
    return page[4 : 4 + length].decode("ascii", "replace").strip(" \0")


def lio_identity(serial: str) -> str:
    """What the kernel's own target makes of a unit serial number: `naa.6001405` and its first 25 hex digits."""
    digits = [digit for digit in serial.lower() if digit in "0123456789abcdef"]
    return "naa.6001405" + "".join(digits).ljust(25, "0")[:25]


def multipath_map(identity: str, sys: Path = sysfs.SYS) -> sysfs.MapperDevice | None:
    """The dm-multipath device of an identity, by its uuid; not one that was cut off from its paths."""
    prefix, _, rest = identity.partition(".")
    wanted = {"naa": f"mpath-3{rest}", "eui": f"mpath-2{rest}"}.get(prefix)
    names = sysfs.listed(sys / "block") if wanted is not None else ()
    for name in names:
        if name.startswith("dm-") and sysfs.text(f"{sys}/block/{name}/dm/uuid") == wanted:
            title = sysfs.text(f"{sys}/block/{name}/dm/name") or ""
            return None if title.startswith(sysfs.CUT_PREFIX) else sysfs.mapper_device(title, sys)
    return None


def maps_over(name: str, sys: Path = sysfs.SYS) -> tuple[str, ...]:
    """The identities of the dm-multipath devices that stand on a disk."""
    uuids = (
        sysfs.text(sys / "block" / holder / "dm/uuid") or ""
        for holder in sysfs.listed(sys / "block" / name / "holders")
    )
    kinds = {"mpath-3": "naa.", "mpath-2": "eui."}
    return tuple(kinds[uuid[:7]] + uuid[7:] for uuid in uuids if uuid[:7] in kinds)


def identity_of(name: str, sys: Path = sysfs.SYS) -> str:
    """The identity that a SCSI disk claims by its block name."""
    return (sysfs.text(sys / "block" / name / "device/wwid") or "").strip()


def path_running(name: str, sys: Path = sysfs.SYS) -> bool:
    """Whether the kernel sends I/O to a SCSI disk now (its transport is neither blocked nor gone)."""
    return sysfs.text(sys / "block" / name / "device/state") == "running"


def over_iscsi(name: str, sys: Path = sysfs.SYS) -> bool:
    """Whether a block device is a SCSI disk of an iSCSI session."""
    return any(_SESSION.fullmatch(part) for part in (sys / "block" / name).resolve().parts)


def unix_listener(name: str, proc: Path = sysfs.PROC) -> bool:
    """Whether some process listens on the abstract unix socket `name`."""
    lines = (sysfs.text(proc / "net/unix") or "").splitlines()
    return any(line.rstrip("@\0").endswith(f" @{name}") for line in lines)


def iscsid_listens(proc: Path = sysfs.PROC) -> bool:
    """Whether the iSCSI daemon (or the socket that starts it) takes orders."""
    return unix_listener("ISCSIADM_ABSTRACT_NAMESPACE", proc)


def multipathd_listens(proc: Path = sysfs.PROC) -> bool:
    """Whether the multipath daemon runs."""
    return unix_listener("/org/kernel/linux/storage/multipathd", proc)


def _number(found: str | None) -> int | None:
    return int(found) if found is not None and found.isdigit() else None


def _bytes(path: str) -> bytes:
    try:
        return sysfs.content(path)
    except OSError:
        return b""
