"""Draining a host over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.coordinator.api.volumesite import volume_api

PATH = "/brickyard/v1/hosts/host-a"


async def test_a_host_is_drained_and_enabled_again(tmp_path: Path) -> None:
    async with volume_api(tmp_path, ("host-a", "host-b")) as api:
        api.here.engine.wait_for_hosts(300)
        volume = await api.volume()
        there = (await api("GET", f"/volumes/{volume['id']}", who="root")).body["volume"]["os-vol-host-attr:host"]
        path = f"/brickyard/v1/hosts/{there.partition('@')[0]}"
        assert (await api("POST", f"{path}/drain", json={})).status == 403
        assert (await api("GET", f"{path}/drain")).status == 403
        before = (await api("GET", f"{path}/drain", who="root")).body["drain"]
        assert (before["drained_at"], before["quiet"], before["working_count"]) == (None, False, 0)
        assert [(left["what"], left["count"], left["ids"]) for left in before["left"]] == [
            ("volumes", 1, [volume["id"]])
        ]
        begun = await api("POST", f"{path}/drain", who="root", json={"reason": "new memory"})
        assert (begun.status, begun.body["drain"]["reason"]) == (200, "new memory")
        shown = (await api("GET", path, who="root")).body["host"]
        assert (shown["enabled"], shown["drained_at"] is not None) == (False, True)
        assert (await api.act(volume["id"], "os-extend", {"new_size": 2})).status == 202
        async with asyncio.timeout(120):
            while not (found := (await api("GET", f"{path}/drain", who="root")).body["drain"])["waiting"]:
                await asyncio.sleep(0.05)
        assert (found["waiting_count"], found["waiting"][0]["kind"]) == (1, "extend_volume")
        assert (await api("POST", f"{path}/enable", who="root", json={})).body["host"]["drained_at"] is None
        await api.settled()
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["size"] == 2


async def test_what_can_not_be_drained(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        for verb in ("GET", "POST"):
            body = {"json": {}} if verb == "POST" else {}
            assert (await api(verb, "/brickyard/v1/hosts/moon/drain", who="root", **body)).status == 404
        assert (await api("POST", f"{PATH}/drain", who="root", json={"reason": "x" * 201})).status == 400
        assert (await api("POST", f"{PATH}/drain", who="root", json={"until": "tomorrow"})).status == 400
        shown = (await api("GET", PATH, who="root")).body["host"]
        assert (shown["enabled"], shown["drained_at"]) == (True, None)
