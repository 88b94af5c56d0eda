"""Can volumes in Ceph be made, read and written?"""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent.diagnostics.finding import Finding, bad, ok, skipped
from agent.diagnostics.place import Place
from agent.host import tools

_PROGRAMS = {
    "rbd": "ceph-common",
    "ceph": "ceph-common",
    "qemu-storage-daemon": "qemu-utils",
}


def check(place: Place) -> Iterator[Finding]:
    if not place.ceph:
        yield skipped("ceph", "No back end of this host is in Ceph.")
        return
    found = [*_programs(place), *_files(place)]
    yield from found
    if not found:
        yield ok("ceph", "The programs and files for Ceph are in place.")


def _programs(place: Place) -> Iterator[Finding]:
    for name, package in _PROGRAMS.items():
        if not any(os.access(f"{place.root}/{folder}/{name}", os.X_OK) for folder in tools.FOLDERS):
            yield bad("ceph", f"{name} is not installed.", f"Install it: apt-get install {package}")
    if not any((place.root / "usr" / "lib").glob("*/qemu/block-rbd.so")):
        yield bad("ceph", "QEMU can not open volumes in Ceph here.", "Install it: apt-get install qemu-block-extra")
    if not (place.root / "dev" / "fuse").exists():
        yield bad("ceph", "FUSE is not in the kernel.", "Run: modprobe fuse")


def _files(place: Place) -> Iterator[Finding]:
    for name, (conf, keyring) in place.ceph.items():
        if not conf.exists():
            yield bad("ceph", f"{conf} of the back end {name} is not there.", "Copy it from a monitor of the cluster.")
        if not keyring.exists():
            remedy = "Make the user and its keyring as the guide on volumes in Ceph says."
            yield bad("ceph", f"The keyring {keyring} of the back end {name} is not there.", remedy)
        elif keyring.stat().st_mode & 0o007:
            yield bad("ceph", f"Everybody on this host can read {keyring}.", f"Run: chmod 0600 {keyring}")
