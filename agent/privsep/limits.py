"""What the privileged side may touch: read by it, from a file that only root can have written.

```toml
[block]
roots = ["/var/lib/brickyard/volumes"]   # loop devices are made of files beneath these alone
[lvm]
groups = ["vg0"]                         # volume groups whose logical volumes may be made, changed and removed
devices = ["/dev/disk/by-id/…"]          # where their parts lie; found by itself when this is left out
[ccw]
bus_ids = ["0.0.1800", "0.0.8000-0.0.80ff"]   # FCP devices and DASDs of IBM Z that may be used
[fc]
array_ports = ["5005076300c20c8a"]       # ports of arrays whose LUNs may be used by plain Fibre Channel adapters
```
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from agent.host import ccw
from agent.host.lvm import is_plain_name
from agent.privsep.errors import LimitsInvalid

DEFAULT_FILE = Path("/etc/brickyard/limits.toml")
_MAX_BYTES = 1 << 20
_PORT_NAME = re.compile(r"[0-9a-f]{16}")
_KEYS = {"block": {"roots"}, "lvm": {"groups", "devices"}, "ccw": {"bus_ids"}, "fc": {"array_ports"}}


@dataclass(frozen=True, slots=True)
class Limits:
    """`roots`: absolute folders, free of symbolic links when they were read. `groups`: of LVM.

    `bus_ids`: channel-attached devices, each one or a range. `array_ports`: port names, 16 hexadecimal digits each.
    """

    roots: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    bus_ids: tuple[str, ...] = ()
    array_ports: tuple[str, ...] = ()


_current: Limits | None = None
_file: Path | None = None


def of_roots(roots: Sequence[str | Path], path: str = "the command line") -> Limits:
    """Limits that root decided on itself; LimitsInvalid for a relative or too wide root."""
    resolved = []
    for root in roots:
        plain = str(root)
        if "\0" in plain or not plain.startswith("/") or ".." in PurePosixPath(plain).parts:
            raise LimitsInvalid(path=path, reason=f"root {plain[:200]!r} is not an absolute path")
        _refuse_foreign_links(plain, path)
        real = os.path.realpath(plain)
        if real == "/":
            raise LimitsInvalid(path=path, reason="the whole file system is no limit")
        resolved.append(real)
    return Limits(tuple(resolved))


def _refuse_foreign_links(root: str, path: str) -> None:
    """Who owns a folder above a root may put a link in its place: a limit is only where root's own links lead."""
    whole = PurePosixPath(root)
    for part in (*reversed(whole.parents), whole):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = Path(part).lstat()
            if stat.S_ISLNK(found.st_mode) and found.st_uid not in {0, os.geteuid()}:
                raise LimitsInvalid(path=path, reason=f"{part} is a symbolic link that is not root's")


def read(path: Path, owner: int = 0) -> Limits:
    """Read and check the file through one descriptor. LimitsInvalid; FileNotFoundError when there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise LimitsInvalid(path=str(path), reason="it is not a regular file")
        if found.st_uid != owner:
            raise LimitsInvalid(path=str(path), reason=f"it belongs to uid {found.st_uid}, not to {owner}")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise LimitsInvalid(path=str(path), reason="others than its owner may write it")
        data = file.read(_MAX_BYTES)
    try:
        parsed = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LimitsInvalid(path=str(path), reason=str(error)) from error
    return _parse(parsed, str(path))


def _parse(parsed: dict[str, object], path: str) -> Limits:
    found: dict[str, list[str]] = {}
    for section, table in parsed.items():
        keys = _KEYS.get(section, set())
        if section not in _KEYS or not isinstance(table, dict) or set(table) - keys:
            known = "; ".join(f"[{name}] with {', '.join(sorted(some))}" for name, some in _KEYS.items())
            raise LimitsInvalid(path=path, reason=f"only these are known: {known}")
        for key, value in table.items():
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise LimitsInvalid(path=path, reason=f"{section}.{key} must be a list of texts")
            found[key] = value
    limits = with_bus_ids(of_roots(found.get("roots", []), path), found.get("bus_ids", []), path)
    limits = with_array_ports(limits, found.get("array_ports", []), path)
    return with_groups(limits, found.get("groups", []), found.get("devices", []), path)


def with_groups(limits: Limits, groups: Sequence[str], devices: Sequence[str] = (), path: str = "") -> Limits:
    """The limits with these volume groups; LimitsInvalid for what can be no name of a group or device."""
    for group in groups:
        if not is_plain_name(group):
            raise LimitsInvalid(path=path, reason=f"{group[:200]!r} is not the name of a volume group")
    for device in devices:
        if not device.startswith("/dev/") or "," in device or ".." in PurePosixPath(device).parts:
            raise LimitsInvalid(path=path, reason=f"{device[:200]!r} is not a device")
    return replace(limits, groups=tuple(groups), devices=tuple(devices))


def with_bus_ids(limits: Limits, bus_ids: Sequence[str], path: str = "") -> Limits:
    """The limits with these channel-attached devices (`0.0.1800`, `0.0.8000-0.0.80ff`); LimitsInvalid."""
    for text in bus_ids:
        first, _, last = text.partition("-")
        known = all(ccw.BUS_ID.fullmatch(one) for one in (first, last or first))
        if not known or ccw.ordered(first) > ccw.ordered(last or first):
            raise LimitsInvalid(path=path, reason=f"{text[:200]!r} is no bus id like 0.0.1800, and no range of them")
    return replace(limits, bus_ids=tuple(bus_ids))


def with_array_ports(limits: Limits, names: Sequence[str], path: str = "") -> Limits:
    """The limits with these ports of arrays; LimitsInvalid for what is no world wide port name in its plain form."""
    for name in names:
        if not _PORT_NAME.fullmatch(name):
            reason = f"{name[:200]!r} is no port name of 16 hexadecimal digits like 5005076300c20c8a"
            raise LimitsInvalid(path=path, reason=reason)
    return replace(limits, array_ports=tuple(names))


def to_text(limits: Limits) -> str:
    """Limits as one argument of a command that root starts."""
    return json.dumps(asdict(limits))


def from_text(text: str) -> Limits:
    """The same limits again: root has read and checked them, so they are taken as they are."""
    values = json.loads(text).items()
    return Limits(**{name: tuple(value) if isinstance(value, list) else value for name, value in values})


def use(limits: Limits, file: Path | None = None) -> None:
    """Set the limits of this process; `file` is where they may be read again."""
    global _current, _file
    _current, _file = limits, file


def again() -> None:
    """Read the file again that root named; LimitsInvalid leaves the limits as they are, a file that is gone allows
    nothing. Nothing where root gave the limits on its command line.
    """
    global _current
    if _file is None:
        return
    try:
        _current = read(_file)
    except FileNotFoundError:
        _current = Limits()


def current() -> Limits:
    """The limits in force; a daemon that sudo started reads the default file at its first verb."""
    global _current
    if _current is None:
        try:
            _current = read(DEFAULT_FILE)
        except FileNotFoundError:
            _current = Limits()
    return _current
