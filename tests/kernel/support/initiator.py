"""The iSCSI side of a guest: its daemons, addresses for portals, and devices read and written past the page cache."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.host import scsi

_MODULES = "iscsi_tcp target_core_mod loop dm_crypt dm_multipath dm_service_time scsi_dh_alua sd_mod"
_BLKGETSIZE64 = 0x80081272


def sh(command: str, *, check: bool = True) -> str:
    done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def until(true: Callable[[], bool], seconds: float = 60, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what or "it did not come true"
        time.sleep(0.1)


def iqn() -> str:
    """This host's name as an initiator."""
    text = Path("/etc/iscsi/initiatorname.iscsi").read_text()
    return next(line.removeprefix("InitiatorName=") for line in text.split() if line.startswith("InitiatorName="))


@contextmanager
def ready(*addresses: str, multipath: bool = False) -> Iterator[None]:
    """iscsid runs, these addresses are this host's, and multipathd runs where it is asked for."""
    sh(f"modprobe -a {_MODULES}")
    with _link(addresses), _daemon("iscsid", scsi.iscsid_listens, "iscsid"):
        if not multipath:
            yield
        else:
            with _daemon("multipathd", scsi.multipathd_listens, "multipathd"):
                yield


@contextmanager
def _link(addresses: tuple[str, ...]) -> Iterator[None]:
    if not addresses:
        yield
        return
    sh("ip link add brickyard0 type dummy && ip link set brickyard0 up")
    try:
        for address in addresses:
            sh(f"ip addr add {address}/24 dev brickyard0")
        yield
    finally:
        sh("ip link del brickyard0")


@contextmanager
def _daemon(command: str, listens: Callable[[], bool], name: str) -> Iterator[None]:
    if listens():
        yield
        return
    sh(command)
    until(listens, what=f"{name} does not listen")
    try:
        yield
    finally:
        pids = sh(f"pidof {name}", check=False).split()
        for pid in pids:
            with suppress(ProcessLookupError):  # the first one's end may be the second one's
                os.kill(int(pid), 15)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what=f"{name} does not end")


def write(device: Path, content: bytes, offset: int = 0) -> None:
    """Past the page cache; a whole number of blocks."""
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, len(content)) as buffer:
            buffer.write(content)
            assert os.pwrite(fd, buffer, offset) == len(content)
        os.fsync(fd)
    finally:
        os.close(fd)


def read(device: Path, size: int, offset: int = 0) -> bytes:
    """Past the page cache."""
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, size) as buffer:
            assert os.preadv(fd, [buffer], offset) == size
            return buffer[:]
    finally:
        os.close(fd)


def size(device: Path) -> int:
    fd = os.open(device, os.O_RDONLY)
    try:
        return int.from_bytes(fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)), sys.byteorder)
    finally:
        os.close(fd)


@contextmanager
def mapped(name: str) -> Iterator[None]:
    """A holder of the device: a map over it that is no business of ours."""
    sectors = size(Path("/dev", name)) // 512
    sh(f"dmsetup create brickyard-test --table '0 {sectors} linear /dev/{name} 0'")
    try:
        yield
    finally:
        sh("dmsetup remove --retry brickyard-test")
