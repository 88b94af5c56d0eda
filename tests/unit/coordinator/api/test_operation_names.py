"""Which call asks is told to filters of an operator's own, once for each call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.scheduler.filters import FILTERS
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.settings import SchedulerSettings
from tests.unit.coordinator.api.test_manage import HOST, listed, put
from tests.unit.coordinator.api.test_volume_connections import types
from tests.unit.coordinator.api.test_volume_work import snapshot
from tests.unit.coordinator.api.volumesite import volume_api
from tests.unit.coordinator.scheduler import test_plugins

asked = test_plugins.asked


async def test_each_call_is_told_once_by_its_name(tmp_path: Path, asked: list[Any]) -> None:
    spied = Scheduler(SchedulerSettings(filters=(*FILTERS, "SoldOut")))
    async with volume_api(tmp_path, scheduler=spied) as api:

        def heard() -> list[str]:
            found = [purpose for _, purpose, _, _ in asked]
            asked.clear()
            return found

        volume = (await api.volume())["id"]
        assert heard() == ["create_volume"]
        assert (await api.act(volume, "os-extend", {"new_size": 2})).status == 202
        await api.settled()
        assert heard() == ["extend_volume"]
        taken = await snapshot(api, volume)
        assert heard() == ["create_snapshot"]
        await types(api, "other")
        assert (await api.act(volume, "os-retype", {"new_type": "other", "migration_policy": "never"})).status == 202
        await api.settled()
        assert heard() == ["retype_volume"]
        put(tmp_path, "theirs", 1 << 20)
        wanted = {"host": HOST, "ref": {"source-name": "theirs"}}
        assert (await api("POST", "/manageable_volumes", who="root", json={"volume": wanted})).status == 202
        await api.settled()
        assert heard() == ["manage_existing"]
        let_go = await api("POST", f"/snapshots/{taken}/action", who="root", json={"os-unmanage": None})
        assert let_go.status == 202
        await api.settled()
        [entry] = await listed(api, "/manageable_snapshots/detail")
        again = {"volume_id": volume, "ref": entry["reference"]}
        assert (await api("POST", "/manageable_snapshots", who="root", json={"snapshot": again})).status == 202
        await api.settled()
        assert heard() == ["manage_existing_snapshot"]
