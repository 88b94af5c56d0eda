"""Pools as administrators see them."""

from __future__ import annotations

from pathlib import Path

from tests.unit.coordinator.api.volumesite import volume_api

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
