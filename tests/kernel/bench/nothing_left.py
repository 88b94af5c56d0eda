"""A pytest plugin: after each test the host must be as it was before, in all that a data plane can leave behind."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_SYS = Path("/sys")
_CONFIG = _SYS / "kernel/config"
_SETTLE_S = 20  # the kernel and udev finish what a test has ended


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _block() -> set[str]:
    found = set()
    for name in _names(_SYS / "block"):
        folder = _SYS / "block" / name
        if name.startswith("loop"):
            if backing := _text(folder / "loop/backing_file"):
                found.add(f"{name} on {backing}")
        elif name.startswith("dm-"):
            found.add(f"dm {_text(folder / 'dm/name')} ({_text(folder / 'dm/uuid')})")
        elif not (name.startswith(("nbd", "ram")) and _text(folder / "size") == "0"):
            found.add(name)
    return found


def _mounts() -> set[str]:
    return {" ".join(line.split(" ")[2:6]) for line in _text(Path("/proc/self/mountinfo")).splitlines()}


def _below(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")} if folder.is_dir() else set()


def _targets() -> set[str]:
    """Objects of LIO; the groups that come with its modules are no objects."""
    found = {
        f"{hba}/{name}"
        for hba in _names(_CONFIG / "target/core") - {"alua"}
        for name in _names(_CONFIG / "target/core" / hba)
    }
    found = {name for name in found if not name.endswith(("/hba_info", "/hba_mode"))}
    for fabric in _names(_CONFIG / "target") - {"core", "dbroot", "version"}:
        place = _CONFIG / "target" / fabric
        found |= {f"{fabric}/{name}" for name in _names(place) if (place / name).is_dir() and name != "discovery_auth"}
    return found


def _nvmet() -> set[str]:
    groups = ("hosts", "ports", "subsystems")
    return {f"{group}/{name}" for group in groups for name in _names(_CONFIG / "nvmet" / group)}


_PARTS: dict[str, Callable[[], set[str]]] = {
    "block devices": _block,
    "mounts": _mounts,
    "SCSI devices": lambda: _names(_SYS / "bus/scsi/devices"),
    "iSCSI sessions": lambda: _names(_SYS / "class/iscsi_session"),
    "iSCSI node records": lambda: _below(Path("/etc/iscsi/nodes")) | _below(Path("/etc/iscsi/send_targets")),
    "NVMe controllers": lambda: _names(_SYS / "class/nvme"),
    "NVMe subsystems": lambda: _names(_SYS / "class/nvme-subsystem"),
    "FC remote ports": lambda: _names(_SYS / "class/fc_remote_ports"),
    "objects of LIO": _targets,
    "objects of nvmet": _nvmet,
    "network links": lambda: _names(_SYS / "class/net"),
    "files of the agent": lambda: _below(Path("/run/brickyard")) | _below(Path("/var/lib/brickyard")),
}


def seen() -> dict[str, set[str]]:
    return {name: look() for name, look in _PARTS.items()}


def difference(before: dict[str, set[str]]) -> list[str]:
    """What is more or less than before, one line each; empty as soon as nothing is."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        now = seen()
        lines = [f"left behind: {name}: {each}" for name in now for each in sorted(now[name] - before[name])]
        lines += [f"gone: {name}: {each}" for name in now for each in sorted(before[name] - now[name])]
        if not lines or time.monotonic() > deadline:
            return lines
        subprocess.run(["udevadm", "settle", "-t", "5"], check=False)
        time.sleep(0.2)


@pytest.fixture(autouse=True)
def host_is_as_before() -> Iterator[None]:
    before = seen()
    yield
    lines = difference(before)
    assert not lines, "\n".join(lines)
