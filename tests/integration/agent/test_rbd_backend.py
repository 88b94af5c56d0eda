"""The back end `rbd` on a real Ceph: one monitor, one manager, one OSD, started here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backends.abilities import adopting, replacing, reverting
from agent.backends.base import CloneSource
from agent.backends.errors import (
    NoSpace,
    NotAdoptable,
    OverSubscribed,
    ShrinkRefused,
    StorageFailed,
    VolumeExists,
    VolumeNotFound,
)
from agent.backends.rbd_errors import CephPoolMissing, ClusterDenied, ClusterHangs, ImageBusy
from agent.base.ids import new_id
from agent.privsep import ceph as verbs
from tests.support import ceph
from tests.support.ceph import backend, fill, got, put

MIB = 1 << 20
pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    ceph.NEEDED,
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ceph.Cluster]:
    with ceph.running() as started:
        yield started


async def test_create_extend_delete_once_more_is_the_same(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path) as place:
        volume = new_id()
        for _ in range(2):
            await place.create(volume, 10 * MIB + 512)
        await put(place, volume, b"brick" * 1000)
        with pytest.raises(VolumeExists):
            await place.create(volume, 11 * MIB)
        for _ in range(2):
            await place.extend(volume, 12 * MIB + 512)
        assert await place.size(volume) == 12 * MIB + 512
        assert (await got(place, CloneSource("volume", volume), 5000)) == b"brick" * 1000
        assert not (await got(place, CloneSource("volume", volume), 2 * MIB, 10 * MIB)).strip(b"\0")
        with pytest.raises(ShrinkRefused):
            await place.extend(volume, 12 * MIB)
        (pool,) = await ceph.patiently(place.pools)
        assert (pool.driver, pool.protocols, pool.allocated_bytes) == ("rbd", ("rbd",), 12 * MIB + 512)
        assert 0 < pool.free_bytes <= pool.total_bytes
        assert [(one.kind, one.id, one.device_bytes) for one in await ceph.patiently(place.inventory)] == [
            ("volume", volume, 12 * MIB + 512)
        ]
        for _ in range(2):
            await place.delete(volume)
        assert await place.size(volume) is None
        await ceph.emptied(cluster, place)
        with pytest.raises(VolumeNotFound):
            await place.path(volume)
        with pytest.raises(VolumeNotFound):
            await place.extend(volume, MIB)


async def test_prepare_fill_publish_discard(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path) as place:
        volume, other = new_id(), new_id()
        path = await place.prepare(volume, 8 * MIB)
        assert path.stat().st_size == 8 * MIB
        await asyncio.to_thread(fill, path, b"image", 4 * MIB)
        assert await place.size(volume) is None
        assert await place.prepare(volume, 8 * MIB) == path
        assert await place.prepared(volume) == 8 * MIB
        for _ in range(2):
            await place.publish(volume)
        assert not path.exists()
        assert await got(place, CloneSource("volume", volume), 5, 4 * MIB) == b"image"
        used = await asyncio.to_thread(cluster.rbd, "du", "--format", "json", f"{ceph.POOL}/byv-{volume}")
        assert '"used_size":4194304' in used
        with pytest.raises(VolumeExists):
            await place.prepare(volume, 8 * MIB)
        await place.prepare(other, MIB)
        for _ in range(2):
            await place.discard(other)
        with pytest.raises(VolumeNotFound):
            await place.publish(other)
        await place.delete(volume)


async def test_neither_snapshots_nor_clones_keep_anything_from_going(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path) as place:
        volume, snapshot, clone, copy = new_id(), new_id(), new_id(), new_id()
        await place.create(volume, 8 * MIB)
        await put(place, volume, b"one")
        for _ in range(2):
            assert await place.snapshot(volume, snapshot) == 8 * MIB
        await put(place, volume, b"two")
        for _ in range(2):
            await place.clone(clone, 9 * MIB, CloneSource("snapshot", snapshot))
            await place.clone(copy, 8 * MIB, CloneSource("volume", volume))
        await put(place, volume, b"six")
        await place.delete(volume)
        await place.delete_snapshot(snapshot)
        await place._trash.emptied()
        assert await got(place, CloneSource("volume", clone), 3) == b"one"
        assert await got(place, CloneSource("volume", copy), 3) == b"two"
        assert await place.size(clone) == 9 * MIB
        with pytest.raises(VolumeNotFound):
            await place.source_path(CloneSource("snapshot", snapshot))
        await place.delete(clone)
        await place.delete(copy)
        await ceph.emptied(cluster, place)


async def test_revert_and_replace(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path) as place:
        volume, snapshot = new_id(), new_id()
        await place.create(volume, 4 * MIB)
        await put(place, volume, b"before")
        await place.snapshot(volume, snapshot)
        await put(place, volume, b"after!")
        for _ in range(2):
            assert await reverting(place).revert(volume, snapshot) == 4 * MIB
        assert await got(place, CloneSource("volume", volume), 6) == b"before"
        path = await replacing(place).prepare_anew(volume, 5 * MIB)
        await asyncio.to_thread(fill, path, b"anew")
        for _ in range(2):
            await replacing(place).replace(volume)
        assert await place.size(volume) == 5 * MIB
        assert await got(place, CloneSource("volume", volume), 4) == b"anew"
        with pytest.raises(VolumeExists):
            await reverting(place).revert(volume, snapshot)
        await place.delete(volume)
        await place.delete_snapshot(snapshot)


async def test_a_chain_that_gets_too_long_is_cut(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path, clone_depth=2) as place:
        volumes = [new_id() for _ in range(4)]
        await place.create(volumes[0], 4 * MIB)
        await put(place, volumes[0], b"root")
        for source, clone in itertools.pairwise(volumes):
            await place.clone(clone, 4 * MIB, CloneSource("volume", source))
        found = [await place._image("volume", one) for one in volumes]
        assert [one is not None and one.parent is not None for one in found] == [False, True, True, False]
        assert await got(place, CloneSource("volume", volumes[-1]), 4) == b"root"
        for one in volumes:
            await place.delete(one)


async def test_adopt_and_release(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path) as place:
        for name in ("theirs", "frozen"):
            await asyncio.to_thread(cluster.rbd, "create", "--size", "4M", f"{ceph.POOL}/{name}")
        await asyncio.to_thread(cluster.rbd, "snap", "create", f"{ceph.POOL}/frozen@kept")
        assert {one.name: bool(one.reason) for one in await adopting(place).foreign()} == {
            "theirs": False, "frozen": True,
        }  # fmt: skip
        volume, snapshot = new_id(), new_id()
        with pytest.raises(NotAdoptable):
            await adopting(place).adopt("volume", volume, "frozen", 4 * MIB)
        with pytest.raises(NotAdoptable):
            await adopting(place).adopt("volume", volume, "theirs", 5 * MIB)
        for _ in range(2):
            await adopting(place).adopt("volume", volume, "theirs", 4 * MIB)
        await put(place, volume, b"theirs")
        await place.snapshot(volume, snapshot)
        for _ in range(2):
            name = await adopting(place).release("snapshot", snapshot, f"volume-{volume}")
        (found,) = [one for one in await adopting(place).foreign() if one.kind == "snapshot"]
        assert (found.name, found.source, found.reason) == (name, f"volume-{volume}", "")
        await adopting(place).adopt("snapshot", snapshot, name, 4 * MIB)
        assert await got(place, CloneSource("snapshot", snapshot), 6) == b"theirs"
        assert await adopting(place).release("volume", volume) == f"volume-{volume}"
        await place.delete_snapshot(snapshot)
        for name in ("frozen", f"volume-{volume}"):
            await asyncio.to_thread(cluster.rbd, "snap", "purge", f"{ceph.POOL}/{name}")
            await asyncio.to_thread(cluster.rbd, "trash", "mv", f"{ceph.POOL}/{name}")


async def test_a_volume_that_a_client_has_open_is_not_lost(
    cluster: ceph.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.backends.rbd_steps._WATCHED_S", 0.0)
    async with backend(cluster, tmp_path / "one") as place, backend(cluster, tmp_path / "two") as other:
        volume = new_id()
        await place.create(volume, 4 * MIB)
        await put(other, volume, b"in use")
        assert len(await place.holders(volume, writers=False)) == 1
        with pytest.raises(ImageBusy):
            await place.delete(volume)
        assert await place.size(volume) == 4 * MIB
        await other._open.release(f"byv-{volume}")
        await place.delete(volume)


async def test_what_this_agent_has_only_read_is_not_in_use(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path) as place:
        volume = new_id()
        await place.create(volume, 4 * MIB)
        await got(place, CloneSource("volume", volume), 512)
        assert await place.holders(volume, writers=False) == []
        await got(place, CloneSource("volume", volume), 512)
        await place.delete(volume)


async def test_a_cluster_that_is_silent_holds_up_nobody(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path, deadline_s=5) as place:
        volume = new_id()
        await place.create(volume, 4 * MIB)
        for silent in ("ceph-osd", "ceph-mon"):
            with cluster.hung(silent):
                async with asyncio.timeout(300):
                    with pytest.raises(ClusterHangs):
                        await place.create(new_id(), 4 * MIB)
            async with asyncio.timeout(300):
                while True:
                    with contextlib.suppress(ClusterHangs):
                        assert await place.size(volume) == 4 * MIB
                        break
        with cluster.hung("ceph-mon"):
            place._space._room = None
            async with asyncio.timeout(120):
                (issue,) = await place.issues()
            assert (issue.code, "ceph -s" in issue.remedy) == ("backend.ceph-hangs", True)
            with pytest.raises(ClusterHangs):
                await place.inventory()
            with pytest.raises(ClusterHangs):
                await place._space.state()
            assert [one.code for one in await place.issues()] == ["backend.ceph-hangs"]
        async with asyncio.timeout(300):
            while await place.issues():
                await asyncio.sleep(0.2)
        await place.delete(volume)


async def test_what_the_cluster_refuses_is_told_with_a_remedy(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path / "pool", pool="nowhere") as place:
        with pytest.raises((CephPoolMissing, ClusterDenied)):
            await place.create(new_id(), MIB)
        with pytest.raises((CephPoolMissing, ClusterDenied)):
            await place.delete(new_id())
    stranger = tmp_path / "stranger.keyring"
    await asyncio.to_thread(
        cluster.ceph, "auth", "get-or-create", "client.other", "mon", "allow r", "-o", str(stranger)
    )
    stranger.chmod(0o600)
    async with backend(cluster, tmp_path / "user", keyring=stranger, user="other") as place:
        with pytest.raises(ClusterDenied) as caught:
            await place.size(new_id())
        assert "ceph auth caps client.other" in caught.value.remedy


async def test_a_full_pool_takes_nothing_more(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path, max_over_subscription=1.0) as place:
        (pool,) = await ceph.patiently(place.pools)
        with pytest.raises(OverSubscribed):
            await place.create(new_id(), pool.total_bytes + MIB)
        await asyncio.to_thread(cluster.ceph, "osd", "pool", "set-quota", ceph.POOL, "max_bytes", "1")
        try:
            place._space._room = None
            with pytest.raises((NoSpace, OverSubscribed)):
                await place.create(new_id(), MIB)
        finally:
            await asyncio.to_thread(cluster.ceph, "osd", "pool", "set-quota", ceph.POOL, "max_bytes", "0")


async def test_what_a_killed_daemon_has_not_written_is_never_published(cluster: ceph.Cluster, tmp_path: Path) -> None:
    async with backend(cluster, tmp_path) as place:
        volume = new_id()
        path = await place.prepare(volume, 4 * MIB)
        verbs._daemons[str(path)].kill()
        verbs._daemons[str(path)].wait()
        with pytest.raises(StorageFailed):
            await place.publish(volume)
        path = await place.prepare(volume, 4 * MIB)
        await asyncio.to_thread(fill, path, b"again")
        await place.publish(volume)
        assert await got(place, CloneSource("volume", volume), 5) == b"again"
        await place.delete(volume)
