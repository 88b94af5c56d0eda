"""The room of a pool, as `ceph df detail` tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.backends.rbd_cluster import RbdCluster
from agent.backends.rbd_errors import SpaceUntold
from agent.backends.rbd_space import Space
from tests.unit.agent.backends.test_rbd_config import place


class Told(RbdCluster):
    """What the cluster's tool prints stands here: no test can make a real manager begin at the right moment."""

    stats: dict[str, Any]

    async def df(self) -> dict[str, Any]:
        return self.stats


async def test_a_cluster_that_does_not_say_yet_is_not_full(tmp_path: Path) -> None:
    """So it answers for the first moments of a manager's life, also when another one takes over."""
    cluster = Told("ceph", place(tmp_path, 0o600))
    space = Space(cluster)
    cluster.stats = {"stored": 0, "max_avail": 0, "quota_bytes": 0}
    with pytest.raises(SpaceUntold, match=cluster.pool):
        await space.admit(1)
    cluster.stats = {"stored": 5, "max_avail": 95, "quota_bytes": 0}
    assert await space.room() == (100, 95)
