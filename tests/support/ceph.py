"""A real Ceph of one monitor, one manager and one OSD in a folder: in user space, with cephx, kept in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from agent.backends.base import Backend, CloneSource
from agent.backends.config import RbdBackendConfig
from agent.backends.opening import opened
from agent.backends.rbd_abilities import WholeRbdBackend
from agent.backends.rbd_errors import ClusterHangs
from agent.host import fuse
from agent.privsep import account, client, contexts, limits, start
from tests.support.ports import free_port

DAEMONS = ("ceph-mon", "ceph-mgr", "ceph-osd")
TOOLS = ("ceph", "rbd", "ceph-authtool", "monmaptool", "qemu-storage-daemon", "setpriv")
MISSING = [
    *(name for name in (*DAEMONS, *TOOLS) if shutil.which(name) is None),
    *(() if fuse.shows_ceph() else ("/dev/fuse, qemu-block-extra",)),
]
NEEDED = pytest.mark.skipif(
    bool(MISSING) or os.geteuid() != 0, reason=f"needs root, and of Ceph: {', '.join(MISSING) or 'nothing more'}"
)
POOL = "volumes"
CAPS = ("mon", "profile rbd", "osd", f"profile rbd pool={POOL}", "mgr", f"profile rbd pool={POOL}")
_START_S = 300.0
T = TypeVar("T")

_CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port},v1:127.0.0.1:{old_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
auth allow insecure global id reclaim = false
run dir = {root}
admin socket = {root}/$name.asok
pid file = {root}/$name.pid
log file = {root}/$name.log
keyring = {root}/admin.keyring
[mon]
mon data = {root}/mon
mon cluster log file = {root}/cluster.log
mon data avail crit = 1
mon data avail warn = 2
[mgr]
mgr data = {root}/mgr
keyring = {root}/mgr/keyring
mgr module path = {root}/modules
mgr initial modules =
mgr stats period = 1
[osd]
osd data = {root}/osd
keyring = {root}/osd/keyring
osd objectstore = memstore
memstore device bytes = {room}
osd memory target = 939524096
osd class dir = /usr/lib/{arch}/rados-classes
osd op num shards = 1
osd mclock profile = high_client_ops
osd scrub during recovery = false
osd client watch timeout = 5
"""


@dataclass
class Cluster:
    """A running cluster. `conf` and `keyring` are what a client with `CAPS` needs."""

    root: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    user: str = "brickyard"

    @property
    def conf(self) -> Path:
        return self.root / "ceph.conf"

    @property
    def keyring(self) -> Path:
        return self.root / "client.keyring"

    def ceph(self, *args: str) -> str:
        """One command of the administrator; its standard output."""
        command = ["ceph", "--conf", str(self.conf), "--connect-timeout", "240", *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def rbd(self, *args: str) -> str:
        command = ["rbd", "--conf", str(self.conf), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def hung(self, *names: str) -> Iterator[None]:
        """Daemons that do not answer, as with a network that swallows everything."""
        try:
            for name in names:
                self.processes[name].send_signal(signal.SIGSTOP)
            yield
        finally:
            for name in names:
                self.processes[name].send_signal(signal.SIGCONT)

    def _start(self, name: str, *args: str) -> None:
        # It must not outlive tests that are killed.
        command = ["setpriv", "--pdeathsig", "KILL", name, "--foreground", "--conf", str(self.conf), *args]
        with (self.root / f"{name}.out").open("wb") as out:
            self.processes[name] = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def start(self, room: int = 2 << 30) -> None:
        """From nothing to a pool that takes volumes."""
        port, old_port = free_port(), free_port()
        fsid = str(uuid.uuid4())
        arch = f"{os.uname().machine}-linux-gnu"
        told = {"fsid": fsid, "port": port, "old_port": old_port, "root": self.root, "room": room, "arch": arch}
        self.conf.write_text(_CONF.format(**told))
        self._keys()
        for name in ("mon", "mgr", "osd", "modules"):
            (self.root / name).mkdir()
        where = ["--addv", "a", f"[v2:127.0.0.1:{port},v1:127.0.0.1:{old_port}]"]
        _tool("monmaptool", "--create", *where, "--fsid", fsid, str(self.root / "monmap"))
        first = ["--monmap", str(self.root / "monmap"), "--keyring", str(self.root / "mon.keyring")]
        _tool("ceph-mon", "--conf", str(self.conf), "--mkfs", "-i", "a", *first)
        self._start("ceph-mon", "-i", "a")
        caps = ("mon", "allow profile mgr", "osd", "allow *", "mds", "allow *")
        self.ceph("auth", "get-or-create", "mgr.a", *caps, "-o", str(self.root / "mgr" / "keyring"))
        self._start("ceph-mgr", "-i", "a")
        number = self.ceph("osd", "new", osd := str(uuid.uuid4())).strip()
        caps = ("mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *")
        self.ceph("auth", "get-or-create", f"osd.{number}", *caps, "-o", str(self.root / "osd" / "keyring"))
        self.ceph("osd", "crush", "add", f"osd.{number}", "1.0", "root=default", "host=here")
        _tool("ceph-osd", "--conf", str(self.conf), "-i", number, "--mkfs", "--osd-uuid", osd)
        self._start("ceph-osd", "-i", number)
        self.ceph("osd", "pool", "create", POOL, "8", "8", "--autoscale-mode=off")
        self.ceph("osd", "pool", "application", "enable", POOL, "rbd")
        self.ceph("auth", "get-or-create", f"client.{self.user}", *CAPS, "-o", str(self.keyring))
        self.keyring.chmod(0o600)
        self._wait()

    def _keys(self) -> None:
        admin, mon = str(self.root / "admin.keyring"), str(self.root / "mon.keyring")
        all_ = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
        _tool("ceph-authtool", "--create-keyring", admin, "--gen-key", "-n", "client.admin", *all_)
        _tool("ceph-authtool", "--create-keyring", mon, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        _tool("ceph-authtool", mon, "--import-keyring", admin)

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            state = self.ceph("pg", "stat")
            pools = json.loads(self.ceph("df", "--format", "json"))["pools"]
            if "8 active+clean" in state and any(one["name"] == POOL and one["stats"]["max_avail"] for one in pools):
                return
            assert time.monotonic() < deadline, state
            time.sleep(0.2)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def running(room: int = 2 << 30) -> Iterator[Cluster]:
    """A cluster of that many bytes for some tests; privileged verbs run in this process until its end."""
    started, before = Cluster(Path(tempfile.mkdtemp(prefix="ceph-"))), limits.current()
    try:
        started.start(room)
        yield started
    finally:
        started.stop()
        limits.use(before)
        client.set_mode("none")
        for context in contexts.BY_NAME.values():
            context.set_client_mode(True)


@contextlib.asynccontextmanager
async def backend(cluster: Cluster, work: Path, **more: object) -> AsyncIterator[WholeRbdBackend]:
    """A back end in its pool, let go of with all that it has open."""
    table = {
        "driver": "rbd", "pool": POOL, "conf": cluster.conf, "keyring": cluster.keyring, "work_dir": work,
        "deadline_s": 300,
    }  # fmt: skip
    made = opened("ceph", RbdBackendConfig.model_validate(table | more))
    assert isinstance(made, WholeRbdBackend)
    start.start_direct([work.parent])
    try:
        yield made
        await made._open.release_all()
    finally:
        made.close()
        for image in list(made._open._shown):
            await made._open.abandon(image)


def fill(path: Path, data: bytes, at: int = 0) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, data, at)
        os.fsync(fd)
    finally:
        os.close(fd)


def content(path: Path, size: int, at: int = 0) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, size, at)
    finally:
        os.close(fd)


async def emptied(cluster: Cluster, place: WholeRbdBackend) -> None:
    """Wait until the trash is empty: a client that was killed holds an image up for a while."""
    async with asyncio.timeout(240):
        while await asyncio.to_thread(cluster.rbd, "trash", "ls", POOL):
            place._trash._last = float("-inf")
            place._trash.tend()
            await place._trash.emptied()


async def put(place: Backend, volume: str, data: bytes, at: int = 0) -> None:
    """Write to a volume, safely."""
    path = await place.path(volume)
    await asyncio.to_thread(fill, path, data, at)


async def got(place: Backend, source: CloneSource, size: int, at: int = 0) -> bytes:
    """Read from a volume or snapshot."""
    path = await place.source_path(source)
    return await asyncio.to_thread(content, path, size, at)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer to what a poll does not wait for when the machine is busy."""
    async with asyncio.timeout(300):
        while True:
            with contextlib.suppress(ClusterHangs):
                return await ask()
            await asyncio.sleep(0.2)


def agent_account() -> tuple[int, int]:
    """User and group that the agents of a site in development become."""
    chosen = account.choose(dev=True)
    return chosen.uid, chosen.gid


def _tool(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
