"""Clusters and the clean-up of workers over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.base.release import RELEASE
from coordinator.state import coordinators, fleet
from tests.unit.coordinator.api.volumesite import Api, volume_api

NAMES = ("host-a", "host-b")


async def down(api: Api, *names: str) -> None:
    for name in names:
        await api.here.db.write(lambda conn, name=name: fleet.set_reachable(conn, name, reachable=False))


async def test_clusters_are_listed_shown_and_filtered(tmp_path: Path) -> None:
    async with volume_api(tmp_path, NAMES, cluster="c1") as api:
        assert (await api("GET", "/clusters")).status == 403
        assert (await api("GET", "/clusters", who="root", version=6)).status == 404
        listed = (await api("GET", "/clusters", who="root", version=7)).body["clusters"]
        short = {"name": "c1@files", "binary": "cinder-volume", "state": "up", "status": "enabled"}
        assert listed == [short]
        (one,) = (await api("GET", "/clusters/detail", who="root", version=25)).body["clusters"]
        assert {**short, "num_hosts": 2, "num_down_hosts": 0, "disabled_reason": None}.items() <= one.items()
        assert "frozen" not in one
        (one,) = (await api("GET", "/clusters/detail", who="root")).body["clusters"]
        assert (one["replication_status"], one["frozen"], one["active_backend_id"]) == ("disabled", False, None)
        await down(api, "host-a")
        shown = (await api("GET", "/clusters/c1@files", who="root")).body["cluster"]
        assert (shown["num_down_hosts"], shown["state"]) == (1, "up")
        for query, count in (
            ("is_up=true", 1), ("is_up=false", 0), ("num_hosts=2", 1), ("num_down_hosts=0", 0), ("disabled=true", 0),
            ("name=c1@files&binary=cinder-volume", 1), ("binary=other", 0), ("frozen=true", 0),
        ):  # fmt: skip
            found = (await api("GET", f"/clusters?{query}", who="root")).body["clusters"]
            assert len(found) == count, query
        await down(api, "host-b")
        assert (await api("GET", "/clusters/c1@files", who="root")).body["cluster"]["state"] == "down"
        assert (await api("GET", "/clusters?color=red", who="root")).status == 400
        assert (await api("GET", "/clusters?frozen=true", who="root", version=7)).status == 400
        assert (await api("GET", "/clusters?num_hosts=x", who="root")).status == 400
        assert (await api("GET", "/clusters/moon", who="root")).status == 404
        assert (await api("GET", "/clusters/c1@files?binary=x", who="root")).status == 404


async def test_a_disabled_cluster_takes_no_new_volumes_and_serves_the_old(tmp_path: Path) -> None:
    async with volume_api(tmp_path, NAMES, cluster="c1") as api:
        volume = await api.volume()
        admin = (await api("GET", f"/volumes/{volume['id']}", who="root")).body["volume"]
        assert admin["cluster_name"] == "c1@files"
        body = {"name": "c1@files", "binary": "cinder-volume", "disabled_reason": "cables"}
        off = await api("PUT", "/clusters/disable", who="root", json=body)
        assert (off.body["cluster"]["status"], off.body["cluster"]["disabled_reason"]) == ("disabled", "cables")
        assert (await api.volume())["status"] == "error"
        made = await api("POST", "/attachments", json={"attachment": {"volume_uuid": volume["id"]}})
        assert made.status == 200
        assert (await api("DELETE", f"/attachments/{made.body['attachment']['id']}")).status == 200
        assert (await api("DELETE", f"/volumes/{volume['id']}")).status == 202
        await api.settled()
        assert (await api("GET", f"/volumes/{volume['id']}")).status == 404
        assert (await api("PUT", "/clusters/enable", who="root", json=body)).status == 400
        assert (await api("PUT", "/clusters/enable", who="root", json={"binary": "cinder-volume"})).status == 400
        assert (await api("PUT", "/clusters/enable", who="root", json={"name": "moon"})).status == 404
        assert (await api("PUT", "/clusters/stop", who="root", json={"name": "c1@files"})).status == 404
        on = (await api("PUT", "/clusters/enable", who="root", json={"name": "c1@files"})).body["cluster"]
        assert (on["status"], on["disabled_reason"]) == ("enabled", None)
        assert (await api.volume())["status"] == "available"
        services = (await api("GET", "/os-services?binary=cinder-volume", who="root")).body["services"]
        assert {item["cluster"] for item in services} == {"c1@files"}
        assert "cluster" not in (await api("GET", "/os-services", who="root", version=6)).body["services"][0]


async def test_cleaning_up_after_dead_services(tmp_path: Path) -> None:
    async with volume_api(tmp_path, NAMES, cluster="c1") as api:
        volume = await api.volume()
        dead = (await api("GET", f"/volumes/{volume['id']}", who="root")).body["volume"]["os-vol-host-attr:host"]
        dead = dead.partition("@")[0]
        path = "/workers/cleanup"
        assert (await api("POST", path, json={})).status == 403
        assert (await api("POST", path, who="root", version=23, json={})).status == 404
        await down(api, dead)
        done = await api("POST", path, who="root", json={"is_up": False})
        assert done.status == 202
        (one,) = done.body["cleaning"]
        assert (one["host"], one["binary"], one["cluster_name"]) == (f"{dead}@files", "cinder-volume", "c1@files")
        assert done.body["unavailable"] == []
        moved = (await api("GET", f"/volumes/{volume['id']}", who="root")).body["volume"]["os-vol-host-attr:host"]
        assert not moved.startswith(dead)
        again = (await api("POST", path, who="root", json={"service_id": one["id"]})).body["cleaning"]
        assert again == [one]
        everything = (await api("POST", path, who="root", json={})).body["cleaning"]
        assert len(everything) == 2
        nulls = dict.fromkeys(("binary", "cluster_name", "disabled", "host", "is_up", "resource_id", "service_id"))
        by_sdk = await api("PUT", path, who="root", json=nulls)
        assert (by_sdk.status, by_sdk.body["cleaning"]) == (202, everything)
        await down(api, *NAMES)
        gone = (await api("POST", path, who="root", json={"cluster_name": "c1@files"})).body
        assert (gone["cleaning"], len(gone["unavailable"])) == ([], 2)
        assert (await api("POST", path, who="root", json={"resource_type": "Boat"})).status == 400
        idle = {"resource_type": "Volume", "resource_id": volume["id"]}
        assert (await api("POST", path, who="root", json=idle)).status == 400


async def test_cleaning_up_what_one_resource_waits_for(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        wire = api.here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        assert (await api("DELETE", f"/volumes/{volume['id']}")).status == 202
        await wire.arrived.wait()
        one = {"resource_type": "Volume", "resource_id": volume["id"]}
        found = (await api("POST", "/workers/cleanup", who="root", json=one)).body
        assert [item["host"] for item in found["cleaning"]] == ["host-a@files"]
        wire.held.set()
        await api.settled()


async def test_nothing_is_cleaned_up_while_coordinators_of_two_releases_are_at_work(tmp_path: Path) -> None:
    async with volume_api(tmp_path, NAMES, cluster="c1") as api:
        volume = await api.volume()
        show = f"/volumes/{volume['id']}"
        server = (await api("GET", show, who="root")).body["volume"]["os-vol-host-attr:host"]
        await down(api, server.partition("@")[0])
        write = api.here.db.write
        await write(lambda conn: coordinators.alive(conn, "mine", "a", RELEASE))
        await write(lambda conn: coordinators.alive(conn, "other", "b", "0.0.9"))
        refused = await api("POST", "/workers/cleanup", who="root", json={})
        assert refused.status == 400
        message = refused.body["badRequest"]["message"]
        assert "0.0.9" in message
        assert RELEASE in message
        assert (await api("GET", show, who="root")).body["volume"]["os-vol-host-attr:host"] == server
        await write(lambda conn: coordinators.gone(conn, "other"))
        assert (await api("POST", "/workers/cleanup", who="root", json={})).status == 202
        assert (await api("GET", show, who="root")).body["volume"]["os-vol-host-attr:host"] != server
