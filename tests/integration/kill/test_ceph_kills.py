"""kill -9 of what works on volumes in Ceph, at each of its fault points: done once more, all is as it should be."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.backends.base import CloneSource
from agent.backends.rbd_abilities import WholeRbdBackend
from agent.base import faults
from agent.base.ids import new_id
from agent.privsep import client
from tests.support import ceph

pytestmark = [
    pytest.mark.kill,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    ceph.NEEDED,
]
MIB = 1 << 20
Step = Callable[[WholeRbdBackend, "Ids"], Coroutine[Any, Any, object]]


class Ids:
    def __init__(self) -> None:
        self.volume, self.snapshot, self.clone = new_id(), new_id(), new_id()


STEPS: dict[str, Step] = {
    "create": lambda place, ids: place.create(ids.volume, 4 * MIB),
    "first": lambda place, ids: ceph.put(place, ids.volume, b"one"),
    "snapshot": lambda place, ids: place.snapshot(ids.volume, ids.snapshot),
    "clone": lambda place, ids: place.clone(ids.clone, 5 * MIB, CloneSource("snapshot", ids.snapshot)),
    "second": lambda place, ids: ceph.put(place, ids.volume, b"two"),
    "revert": lambda place, ids: place.revert(ids.volume, ids.snapshot),
    "delete": lambda place, ids: place.delete(ids.volume),
}
POINTS = [
    ("create", "backend.rbd.made"),
    ("snapshot", "backend.rbd.moment"),
    ("snapshot", "backend.rbd.cloned"),
    ("snapshot", "backend.rbd.published"),
    ("clone", "backend.rbd.flat"),
    ("clone", "backend.rbd.published"),
    ("revert", "backend.rbd.cloned"),
    ("revert", "backend.rbd.trashed"),
    ("revert", "backend.rbd.replacing"),
    ("revert", "backend.rbd.published"),
    ("delete", "backend.rbd.trashed"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ceph.Cluster]:
    with ceph.running() as started:
        yield started


@pytest.fixture
def work() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ceph-kill-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("dying", "point"), POINTS, ids=lambda word: str(word).rpartition(".")[2])
def test_what_was_cut_off_is_done_once_more(cluster: ceph.Cluster, work: Path, dying: str, point: str) -> None:
    ids = Ids()
    for name, step in STEPS.items():
        if name == dying:
            assert killed(cluster, work, step, ids, point) == signal.SIGKILL
        asyncio.run(done(cluster, work, step, ids))
    asyncio.run(ended(cluster, work, ids))


async def done(cluster: ceph.Cluster, work: Path, step: Step, ids: Ids) -> None:
    async with ceph.backend(cluster, work, clone_depth=1) as place:
        await step(place, ids)


async def ended(cluster: ceph.Cluster, work: Path, ids: Ids) -> None:
    async with ceph.backend(cluster, work, clone_depth=1) as place:
        assert await place.size(ids.volume) is None
        assert await ceph.got(place, CloneSource("snapshot", ids.snapshot), 3) == b"one"
        assert await ceph.got(place, CloneSource("volume", ids.clone), 3) == b"one"
        assert {(one.kind, one.id) for one in await ceph.patiently(place.inventory)} == {
            ("snapshot", ids.snapshot), ("volume", ids.clone),
        }  # fmt: skip
        await place.delete(ids.clone)
        await place.delete_snapshot(ids.snapshot)
        await ceph.emptied(cluster, place)


def killed(cluster: ceph.Cluster, work: Path, step: Step, ids: Ids, point: str) -> int:
    """Do it in a process of its own that dies at the point; the signal that ended it."""
    child = os.fork()
    if child == 0:
        client._privilege.pools.clear()  # their threads are not in this process
        faults.arm(point)
        asyncio.run(done(cluster, work, step, ids))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1
