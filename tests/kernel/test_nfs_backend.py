"""The back end `nfs` on the kernel's own server and client: by content, unmounted, and with a server that hangs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backends.base import CloneSource
from agent.backends.config import NfsBackendConfig
from agent.backends.errors import NotMounted
from agent.backends.share import ShareBackend
from agent.base.ids import new_id
from tests.kernel.support import shares

MIB = 1 << 20
SHARE = "127.0.0.1:/"


def tool(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An export of a file system of its own; `rpc.nfsd 0` and `rpc.nfsd 4` stop and start its server."""
    folder = tmp_path_factory.mktemp("nfs")
    disk, export = folder / "disk", folder / "export"
    export.mkdir()
    with disk.open("wb") as out:
        out.truncate(256 * MIB)
    tool("mkfs.ext4", "-q", str(disk))
    tool("mount", "-o", "loop", str(disk), str(export))
    tool("modprobe", "--all", "nfsd", "nfs")
    mounted = [path for path in ("/proc/fs/nfsd",) if not os.path.ismount(path)]
    for path in mounted:
        tool("mount", "-t", "nfsd", "nfsd", path)
    Path("/var/lib/nfs").mkdir(exist_ok=True)
    tool("exportfs", "-i", "-o", "rw,no_root_squash,fsid=0,no_subtree_check,insecure", f"127.0.0.1:{export}")
    tool("rpc.nfsd", "--no-nfs-version", "3", "4")
    mountd = subprocess.Popen(["rpc.mountd", "--foreground", "--no-udp", "--no-nfs-version", "3"])
    yield export
    tool("rpc.nfsd", "0")
    mountd.terminate()
    mountd.wait(30)
    tool("exportfs", "-ua")
    for path in mounted:
        tool("umount", path)
    tool("umount", str(export))


@pytest.fixture
def point(server: Path, tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "point"
    place.mkdir()
    tool("mount", "-t", "nfs4", "-o", "vers=4.2,hard,timeo=50,lookupcache=none", SHARE, str(place))
    yield place
    with contextlib.suppress(AssertionError):
        tool("umount", "--force", "--lazy", str(place))


def made(point: Path, **keys: object) -> ShareBackend:
    return ShareBackend("share", NfsBackendConfig.model_validate(
        {"driver": "nfs", "path": str(point), "share": SHARE, **keys}))  # fmt: skip


async def test_the_life_of_volumes(point: Path, server: Path) -> None:
    backend = made(point)
    one, two, snap = (new_id() for _ in range(3))
    data = os.urandom(3 * MIB)
    path = await backend.prepare(one, 8 * MIB)
    with path.open("r+b") as out:
        out.write(data)
    await backend.publish(one)
    assert await backend.snapshot(one, snap) == 8 * MIB
    await backend.clone(two, 10 * MIB, CloneSource("snapshot", snap))
    await backend.extend(one, 12 * MIB)
    kept = (server / "volumes" / two).read_bytes()
    assert hashlib.sha256(kept).digest() == hashlib.sha256(data + bytes(7 * MIB)).digest()
    (pool,) = await backend.pools()
    assert (pool.driver, pool.allocated_bytes) == ("nfs", 30 * MIB)
    for ident in (one, two):
        await backend.delete(ident)
    await backend.delete_snapshot(snap)
    assert await backend.inventory() == []
    assert await backend.issues() == []
    backend.close()


async def test_without_the_share_nothing_is_written_below_its_place(point: Path) -> None:
    mount = ("mount", "-t", "nfs4", "-o", "vers=4.2", SHARE, str(point))
    await shares.is_missed(made(point), point, lambda: tool("umount", "--lazy", str(point)), lambda: tool(*mount))


async def test_another_share_at_its_place_is_not_taken(point: Path) -> None:
    backend = ShareBackend("share", NfsBackendConfig(driver="nfs", path=point, share="127.0.0.1:/other"))
    with pytest.raises(NotMounted):
        await backend.create(new_id(), MIB)


async def test_a_server_that_hangs_costs_nobody_else_and_work_goes_on_when_it_is_back(point: Path) -> None:
    served = ("rpc.nfsd", "--no-nfs-version", "3", "4")
    await shares.hangs(made(point, deadline_s=3.0), lambda: tool("rpc.nfsd", "0"), lambda: tool(*served), within=2.0)
