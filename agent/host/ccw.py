"""Channel-attached devices of IBM Z as the kernel tells them: ccw devices, and DASDs among them. Pure reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agent.host.kernel import current
from agent.host.sysfs import text

BUS_ID = re.compile(r"[0-9a-f]{1,2}\.[0-3]\.[0-9a-f]{4}")
GOOD = "good"
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class CcwDevice:
    """`availability` is `good`, or says why not (`no device`, `no path`, `boxed`); `online` alone proves nothing:
    it stays 1 when the device is taken away."""

    bus_id: str
    online: bool
    availability: str
    device_type: str
    control_unit: str
    driver: str


@dataclass(frozen=True, slots=True)
class Dasd:
    """A DASD: `status` is `unformatted`, `online`, …; `disk` (`dasda`) and `size` (bytes) only while it is online.

    `uid` names the device itself; its volume serial changes with its label.
    """

    bus_id: str
    online: bool
    availability: str
    status: str
    uid: str
    read_only: bool
    disk: str
    size: int
    diskseq: int | None

    @property
    def device(self) -> str:
        return f"/dev/{self.disk}" if self.disk else ""


def is_there() -> bool:
    """Whether this host has a channel subsystem at all."""
    return (current().sys / "bus" / "ccw").is_dir()


def folder(bus_id: str) -> Path:
    return current().sys / "bus" / "ccw" / "devices" / bus_id


def device(bus_id: str) -> CcwDevice | None:
    """None while the device is ignored (cio_ignore) or does not exist."""
    place = folder(bus_id)
    online = text(place / "online")
    if online is None:
        return None
    return CcwDevice(
        bus_id,
        online == "1",
        text(place / "availability") or GOOD,
        text(place / "devtype") or "",
        text(place / "cutype") or "",
        (place / "driver").resolve().name if (place / "driver").is_symlink() else "",
    )


def dasd(bus_id: str) -> Dasd | None:
    """None when there is no such device, or it is no DASD."""
    found, place = device(bus_id), folder(bus_id)
    if found is None or not found.driver.startswith("dasd"):
        return None
    disk = next(iter(listed(place / "block")), "")
    block = place / "block" / disk
    return Dasd(
        bus_id,
        found.online,
        found.availability,
        text(place / "status") or "unknown",
        text(place / "uid") or "",
        text(place / "readonly") == "1",
        disk,
        (_number(block / "size") or 0) * _SECTOR if disk else 0,
        _number(block / "diskseq") if disk else None,
    )


def dasds() -> tuple[Dasd, ...]:
    """All DASDs that are not ignored, by bus id."""
    found = (dasd(name) for name in listed(current().sys / "bus" / "ccw" / "devices"))
    return tuple(one for one in found if one is not None)


def is_ignored(bus_id: str) -> bool:
    """Whether the kernel's list of ignored devices names it (`0.0.0120` or a range `0.0.0000-0.0.ffff`)."""
    return any(covers(line.strip(), bus_id) for line in (text(current().proc / "cio_ignore") or "").splitlines())


def ignored_at_start(bus_id: str) -> bool:
    """Whether the kernel was told at its start to ignore the device (`cio_ignore=all,!0.0.0009` and the like)."""
    ignored = False
    for word in (text(current().proc / "cmdline") or "").split():
        if not word.startswith("cio_ignore="):
            continue
        for rule in word.removeprefix("cio_ignore=").split(","):
            spared, plain = rule.startswith("!"), rule.removeprefix("!")
            if plain == "all" or covers(plain, bus_id):
                ignored = not spared
    return ignored


def covers(span: str, bus_id: str) -> bool:
    """Whether a bus id or a range of them (`0.0.8000-0.0.80ff`) contains this one."""
    first, _, last = span.partition("-")
    if not BUS_ID.fullmatch(first) or not BUS_ID.fullmatch(last or first):
        return False
    return ordered(first) <= ordered(bus_id) <= ordered(last or first)


def ordered(bus_id: str) -> tuple[int, int, int]:
    """A bus id as numbers, so that ranges can be compared."""
    channel, subset, device_number = bus_id.split(".")
    return int(channel, 16), int(subset, 16), int(device_number, 16)


def _number(path: Path) -> int | None:
    found = text(path)
    return int(found) if found is not None and found.isdigit() else None


def listed(place: Path) -> tuple[str, ...]:
    """Names in a folder, sorted; none when it can not be read."""
    try:
        return tuple(sorted(entry.name for entry in place.iterdir()))
    except OSError:
        return ()
