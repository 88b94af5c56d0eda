"""Pools as administrators see them."""

from __future__ import annotations

from pathlib import Path

from tests.unit.coordinator.api.volumesite import Api, volume_api
from tests.unit.coordinator.operations.support import report_pools

OURS = {"OpenStack-API-Version": "volume 3.71, brickyard 1.1"}
POOLS = "/scheduler-stats/get_pools?detail=True"


async def test_the_scheduler_figures_come_with_our_version(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        (pool,) = (await api("GET", POOLS, who="root", headers=OURS)).body["pools"]
        kinds = {each["provisioned_type"]: each for each in pool["capacity_factors"]}
        told = pool["capabilities"]
        for each in kinds.values():
            assert each["total_capacity"] == told["total_capacity_gb"]
            assert each["free_capacity"] == told["free_capacity_gb"]
        largest = int(max(each["virtual_free_capacity"] for each in kinds.values()))
        assert largest > 0
        for path, headers in ((POOLS, {}), ("/scheduler-stats/get_pools", OURS)):
            (pool,) = (await api("GET", path, who="root", headers=headers)).body["pools"]
            assert "capacity_factors" not in pool
        assert (await api("GET", POOLS, headers=OURS)).status == 403


async def test_what_is_not_managed_any_more_is_promised_all_the_same(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        made = [await api.volume() for _ in range(2)]
        assert await _sums(api) == (2, 2)
        assert (await api.act(made[0]["id"], "os-unmanage", who="root")).status == 202
        await api.settled()
        assert await _sums(api) == (1, 2)


async def _sums(api: Api) -> tuple[float, float]:
    """GiB of ours and in all, once the host was asked."""
    backend = api.here.hosts.wires["host-a"].backend
    assert backend is not None
    await report_pools(api.here.db, "host-a", backend)
    (pool,) = (await api("GET", POOLS, who="root")).body["pools"]
    return pool["capabilities"]["allocated_capacity_gb"], pool["capabilities"]["provisioned_capacity_gb"]
