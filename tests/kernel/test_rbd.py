"""Volumes in Ceph as disks of hosts, by the kernel's client: used, grown, held, cut off, killed, without a cluster."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from agent.host import rbd
from agent.wire.jobs import Connection, LuksFormat
from tests.integration.agent.agent_process import Site, finish
from tests.kernel.support import diagnosed, initiator
from tests.kernel.support.pair import MIB, SIZE, Pair, Transport, good
from tests.support import ceph
from tests.support.ceph_pool import Pool, backend_table

FAIL_IO_S = 20


class ClusterPair(Pair):
    """Both hosts have a key of the cluster; the first one serves its pool."""

    backend = "ceph"

    def __init__(self, site: Site, cluster: ceph.Cluster) -> None:
        super().__init__(site, Transport("rbd", "host.away", "", _no_target))
        self.pool = Pool(cluster, site.folder)
        self.keyring = site.folder / "keyring"
        with self.home.config.open("a") as config:
            config.write(backend_table(cluster, site.folder))
        for agent in (self.home, self.away):
            with agent.config.open("a") as config:
                config.write(f'[connectors]\nceph_keyring = "{self.keyring}"\nceph_fail_io_s = {FAIL_IO_S}\n')


def _no_target(*_: object) -> None:
    raise AssertionError("no target of this host takes part")


@pytest.fixture(scope="module")
def cluster() -> Iterator[ceph.Cluster]:
    initiator.sh("modprobe -a fuse rbd dm_crypt")
    with ceph.running(1 << 30) as running:
        yield running


@pytest.fixture(scope="module")
def hosts(cluster: ceph.Cluster) -> Iterator[ClusterPair]:
    site = Site()
    made = ClusterPair(site, cluster)
    yield made
    for agent in (made.away, made.home):
        asyncio.run(agent.kill())
    key = made.keyring.read_text().partition("key = ")[2].strip().encode()
    for path in (made.home.log, made.away.log, *made.home.state.rglob("*"), *made.away.state.rglob("*")):
        assert not path.is_file() or key not in path.read_bytes(), path
    site.remove()


@pytest.fixture
async def pair(hosts: ClusterPair) -> ClusterPair:
    await hosts.awake()
    return hosts


def disks() -> list[str]:
    return [one.name for one in rbd.mapped()]


def failed(status: Any) -> str:
    assert status.error is not None, status
    return str(status.error.code)


async def offered(pair: Pair, mode: str = "rw") -> tuple[str, str, Connection]:
    volume, attachment = await pair.made(), new_id()
    return volume, attachment, (await pair.export(volume, attachment, mode=mode))[attachment]


async def test_written_read_and_grown(pair: ClusterPair) -> None:
    async with pair.attached() as (volume, connection, device):
        path = Path(device["device"])
        assert connection.identity == f"image.{pair.pool.about(f'byv-{volume}')['id']}"
        content = os.urandom(MIB)
        initiator.write(path, content)
        assert pair.pool.raw(f"byv-{volume}", MIB) == content
        async with pair.away.client() as told, pair.home.client() as home:
            (row,) = await told.attachments()
            assert (row.state, row.protocol, row.paths) == ("attached", "rbd", (str(path),))
            (export,) = await home.exports()
            assert (export.state, export.connected, export.reason) == ("exported", None, "")
            assert await pair.grow(volume, 2 * SIZE) == {row.attachment_id: 2 * SIZE}
            assert "rbd" in (await told.host()).capabilities
        assert initiator.size(path) == 2 * SIZE
        assert initiator.read(path, MIB) == content
        shown = diagnosed.explained(pair.away, volume)
        assert f"volumes/byv-{volume}" in shown
        assert f"/dev/{path.name}" in shown
        hidden = pair.keyring.read_text().partition("key = ")[2].strip()
        assert hidden not in Path(f"/sys/bus/rbd/devices/{path.name.removeprefix('rbd')}/config_info").read_text()
    assert disks() == []


async def test_udev_does_not_watch_it(pair: ClusterPair) -> None:
    async with pair.attached() as (_, _, device):
        initiator.sh("udevadm settle")
        number = Path(device["device"]).stat().st_rdev
        assert not Path(f"/run/udev/watch/b{os.major(number)}:{os.minor(number)}").is_symlink()


async def test_encrypted(pair: ClusterPair) -> None:
    pair.encryption = LuksFormat(format="luks1")
    async with pair.attached() as (volume, _, device):
        path = Path(device["device"])
        assert device["device"].startswith("/dev/mapper/brickyard-")
        content = os.urandom(MIB)
        initiator.write(path, content)
        assert initiator.size(path) == SIZE
        assert content[:4096] not in pair.pool.raw(f"byv-{volume}", SIZE)
        await pair.grow(volume, 2 * SIZE)
        assert initiator.size(path) == 2 * SIZE
        assert initiator.read(path, MIB) == content
    assert disks() == []


async def test_read_only(pair: ClusterPair) -> None:
    async with pair.attached("ro") as (_, connection, device):
        assert connection.ceph is not None
        assert connection.ceph.read_only
        with pytest.raises(PermissionError):
            initiator.write(Path(device["device"]), bytes(4096))
        assert initiator.read(Path(device["device"]), 4096) == bytes(4096)


async def test_several_at_once_and_on_the_host_that_serves_it(pair: ClusterPair) -> None:
    made = [await offered(pair) for _ in range(3)]
    done = await asyncio.gather(*(pair.attach(volume, connection, one) for volume, one, connection in made))
    names = {good(status)["attached"][0]["device"] for status in done}
    assert len(names) == len(disks()) == len(made)
    for volume, _, _ in made:
        good(await pair.detach(volume))
        await pair.delete(volume)
    volume, attachment, connection = await offered(pair)
    async with pair.home.client() as told:
        args = pair.attach_args(volume, connection, attachment)
        good(await finish(told, pair.key("attach"), 1, args))
        good(await finish(told, pair.key("detach"), 1, pair.attach_args(volume, None)))
    await pair.delete(volume)
    assert disks() == []


async def test_a_cluster_that_is_silent_for_a_while(pair: ClusterPair, cluster: ceph.Cluster) -> None:
    async with pair.attached() as (_, _, device):
        content = os.urandom(MIB)
        with cluster.hung("ceph-osd"):
            writing = asyncio.create_task(asyncio.to_thread(initiator.write, Path(device["device"]), content))
            await asyncio.sleep(FAIL_IO_S / 4)
            assert not writing.done()
        await writing
        assert initiator.read(Path(device["device"]), MIB) == content


async def test_detached_when_the_cluster_does_not_answer_any_more(pair: ClusterPair, cluster: ceph.Cluster) -> None:
    volume, attachment, connection = await offered(pair)
    path = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
    initiator.write(path, os.urandom(MIB))
    with cluster.hung("ceph-osd", "ceph-mon"):
        began = time.monotonic()
        writing = asyncio.create_task(asyncio.to_thread(initiator.write, path, os.urandom(MIB)))
        with pytest.raises(OSError, match=r"timed out|error"):
            await writing
        while (status := await pair.detach(volume)).error is not None:
            assert failed(status) == "attachment.left-over"
            assert "does not answer" in status.error.message or "does not end" in status.error.message
            assert time.monotonic() - began < 40 * FAIL_IO_S
        assert disks() == []
    await pair.delete(volume)


async def test_another_image_and_another_cluster_are_refused(pair: ClusterPair) -> None:
    volume, attachment, connection = await offered(pair)
    assert connection.ceph is not None
    wrong = [
        connection.model_copy(update={"identity": "image.10aa6b8b4567"}),
        connection.model_copy(update={"size_bytes": 2 * SIZE}),
        connection.model_copy(update={"ceph": connection.ceph.model_copy(update={"fsid": new_id()})}),
    ]
    for one in wrong:
        assert failed(await pair.attach(volume, one, attachment)) == "attachment.mismatch"
        assert disks() == []
        good(await pair.detach(volume))
    missing = connection.model_copy(update={"target": f"byv-{new_id()}"})
    status = await pair.attach(volume, missing, attachment)
    assert failed(status) == "rbd.map-failed"
    assert status.error is not None
    assert "no such image" in status.error.message
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_a_key_that_the_cluster_does_not_know_and_one_that_all_can_read(pair: ClusterPair) -> None:
    volume, attachment, connection = await offered(pair)
    right = pair.keyring.read_text()
    try:
        pair.keyring.write_text("[client.brickyard]\n\tkey = AQDb+g1qAAAAABAAo1u5VUWqeJNZTGrZxhtB3w==\n")
        assert failed(await pair.attach(volume, connection, attachment)) == "rbd.map-failed"
        pair.keyring.write_text(right)
        pair.keyring.chmod(0o644)
        assert failed(await pair.attach(volume, connection, attachment)) == "attachment.ceph-keyring"
    finally:
        pair.keyring.write_text(right)
        pair.keyring.chmod(0o640)
    assert disks() == []
    good(await pair.attach(volume, connection, attachment))
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_a_process_that_has_it_open_is_named_and_cut_off_by_force(pair: ClusterPair) -> None:
    volume, attachment, connection = await offered(pair)
    path = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
    content = os.urandom(MIB)
    initiator.write(path, content)
    with path.open("rb") as file:
        user = subprocess.Popen(["sleep", "600"], stdin=file, user=65534)
    with user:
        try:
            status = await pair.detach(volume)
            assert failed(status) == "attachment.left-over"
            assert status.error is not None
            assert f"process {user.pid} (sleep)" in status.error.message
            assert initiator.read(path, MIB) == content
            good(await pair.detach(volume, force=True))
            assert disks() == []
        finally:
            user.kill()
    await pair.delete(volume)


async def test_killed_while_attaching_and_detaching(pair: ClusterPair) -> None:
    pair.encryption = LuksFormat(format="luks1")
    for point in ("agent.attachment.decided", "agent.attachment.attached"):
        volume, attachment, connection = await offered(pair)
        device = (await pair.killed(volume, connection, attachment, point))["attached"][0]["device"]
        initiator.write(Path(device), os.urandom(MIB))
        assert len(disks()) == 1
        await pair.killed_detaching(volume)
        assert disks() == []
        await pair.delete(volume)
