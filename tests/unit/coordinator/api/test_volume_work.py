"""Retype, cascade, force, and what else is done to volumes and snapshots by actions."""

from __future__ import annotations

import asyncio
from pathlib import Path

from coordinator.lifecycle.snapshot import SNAPSHOT
from coordinator.lifecycle.volume import VOLUME
from coordinator.state import operations, volumes
from tests.unit.coordinator.api.test_volume_connections import MISSING, status, text, types
from tests.unit.coordinator.api.volumesite import Api, volume_api


async def snapshot(api: Api, volume_id: str, who: str = "worker") -> str:
    made = await api("POST", "/snapshots", who=who, json={"snapshot": {"volume_id": volume_id}})
    assert made.status == 202, made.body
    await api.settled()
    return str(made.body["snapshot"]["id"])


async def usage(api: Api) -> dict[str, int]:
    quota = (await api("GET", "/limits")).body["limits"]["absolute"]
    return {name: quota[f"total{name}Used"] for name in ("Volumes", "Snapshots", "Gigabytes")}


async def test_retype_where_the_data_stay(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        plain = await types(api, "plain")
        volume = (await api.volume())["id"]
        assert (await api.act(volume, "os-retype", {"new_type": "plain"})).status == 202
        shown = (await api("GET", f"/volumes/{volume}")).body["volume"]
        assert (shown["volume_type"], shown["volume_type_id"], shown["status"]) == ("plain", plain, "available")
        same = await api.act(volume, "os-retype", {"new_type": "plain"})
        assert (same.status, "New volume_type same as original" in text(same)) == (400, True)
        assert (await api.act(volume, "os-retype", {"new_type": "nope"})).status == 404
        assert (await api.act(volume, "os-retype", {"new_type": "plain", "migration_policy": "x"})).status == 400
        await types(api, "elsewhere", volume_backend_name="gold")
        far = await api.act(volume, "os-retype", {"new_type": "elsewhere", "migration_policy": "on-demand"})
        assert (far.status, "lacks volume_backend_name=gold" in text(far)) == (400, True)
        secret = await types(api, "secret")
        await api("POST", f"/types/{secret}/encryption", who="root", json={"encryption": {"provider": "luks"}})
        refused = await api.act(volume, "os-retype", {"new_type": "secret"})
        assert (refused.status, "encryption of the two types differs" in text(refused)) == (400, True)
        anew = {"new_type": "secret", "migration_policy": "on-demand"}
        assert (await api.act(volume, "os-retype", anew)).status == 202
        await api.settled()
        shown = (await api("GET", f"/volumes/{volume}")).body["volume"]
        assert (shown["status"], shown["volume_type"], shown["encrypted"]) == ("available", "secret", True)
        volume = (await api.volume())["id"]
        shared = await types(api, "shared", multiattach="<is> True")
        assert (await api.act(volume, "os-retype", {"new_type": shared})).status == 202
        assert (await api("GET", f"/volumes/{volume}")).body["volume"]["multiattach"] is True


async def test_retype_counts_to_the_new_type(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await types(api, "few")
        first, second = (await api.volume())["id"], (await api.volume())["id"]
        project = (await api("GET", f"/volumes/{first}", who="root")).body["volume"]["os-vol-tenant-attr:tenant_id"]
        await api("PUT", f"/os-quota-sets/{project}", who="root", json={"quota_set": {"volumes_few": 1, "volumes": 2}})
        assert (await api.act(first, "os-retype", {"new_type": "few"})).status == 202
        over = await api.act(second, "os-retype", {"new_type": "few"})
        assert (over.status, "volumes_few" in text(over)) == (413, True)


async def test_what_an_extend_under_way_needs_is_reserved(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await types(api, "plain")
        volume = await api.volume(volume_type="plain")
        wire = api.here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        assert (await api.act(volume["id"], "os-extend", {"new_size": 3})).status == 202

        async def gigabytes() -> list[dict[str, int]]:
            project = (await api("GET", f"/volumes/{volume['id']}", who="root")).body["volume"]
            path = f"/os-quota-sets/{project['os-vol-tenant-attr:tenant_id']}?usage=true"
            found = (await api("GET", path)).body["quota_set"]
            return [found[name] for name in ("gigabytes", "gigabytes_plain")]

        for told in await gigabytes():
            assert (told["in_use"], told["reserved"]) == (1, 2)
        wire.held.set()
        await api.settled()
        for told in await gigabytes():
            assert (told["in_use"], told["reserved"]) == (3, 0)


async def test_what_a_hung_extend_reserves_is_free_when_it_is_cancelled_not_by_a_word(tmp_path: Path) -> None:
    """A status that is reset would not keep the host from going on: the refusal says so, and the size stays true."""
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        wire = api.here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        assert (await api.act(volume, "os-extend", {"new_size": 3})).status == 202
        await asyncio.wait_for(wire.arrived.wait(), 60)
        for status in ("available", "error"):
            refused = await api.act(volume, "os-reset_status", {"status": status}, who="root")
            assert (refused.status, "extending" in text(refused)) == (400, True), refused.body
            assert "brickyard operation cancel " in text(refused)
        assert (await usage(api))["Gigabytes"] == 3
        (operation,) = await api.here.db.read(lambda conn: operations.listing(conn, active=True))
        cancelled = await api("POST", f"/brickyard/v1/operations/{operation.id}/cancel", who="root", json={})
        assert cancelled.status == 202, cancelled.body
        wire.held.set()
        await api.settled()
        shown = (await api("GET", f"/volumes/{volume}")).body["volume"]
        assert shown["status"] == "available"
        assert (await usage(api))["Gigabytes"] == shown["size"]


async def test_cascade_takes_all_or_says_why_not(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        before = await usage(api)
        volume = (await api.volume())["id"]
        taken = [await snapshot(api, volume) for _ in range(3)]
        plain = await api("DELETE", f"/volumes/{volume}")
        assert (plain.status, "dependent snapshots" in text(plain)) == (400, True)
        wire = api.here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        assert (await api("DELETE", f"/volumes/{volume}?cascade=true")).status == 202
        assert await status(api, volume) == "deleting"
        wire.held.set()
        await api.settled()
        for path in (f"/volumes/{volume}", *(f"/snapshots/{item}" for item in taken)):
            assert (await api("GET", path)).status == 404
        assert await usage(api) == before
        left = [path for path in (tmp_path / "host-a" / "volumes").rglob("*") if path.is_file()]
        assert left == []


async def test_a_snapshot_that_stays_keeps_the_volume(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        taken = [await snapshot(api, volume) for _ in range(3)]
        bad = tmp_path / "host-a" / "volumes" / "snapshots" / taken[1]
        bad.unlink()
        bad.mkdir()
        assert (await api("DELETE", f"/volumes/{volume}?cascade=true")).status == 202
        await api.settled()
        assert await status(api, volume) == "available"
        shown = [(await api("GET", f"/snapshots/{item}")) for item in taken]
        assert [answer.status for answer in shown] == [404, 200, 404]
        assert shown[1].body["snapshot"]["status"] == "error_deleting"
        said = (await api("GET", f"/messages?resource_uuid={volume}")).body["messages"]
        assert taken[1] in said[0]["user_message"]
        bad.rmdir()
        assert (await api("DELETE", f"/volumes/{volume}?cascade=true")).status == 202
        await api.settled()
        assert (await api("GET", f"/volumes/{volume}")).status == 404


async def test_force_ends_the_work_first(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        wire = api.here.hosts.wires["host-a"]
        made = await api("POST", "/volumes", json={"volume": {"size": 1}})
        await api.settled()
        volume = made.body["volume"]["id"]
        taken = await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}})
        await api.settled()
        first = taken.body["snapshot"]["id"]
        assert (await api("POST", f"/snapshots/{first}/action", json={"os-force_delete": None})).status == 403
        gone = await api("POST", f"/snapshots/{first}/action", who="root", json={"os-force_delete": None})
        assert gone.status == 202
        await api.settled()
        assert (await api("GET", f"/snapshots/{first}")).status == 404
        second = (await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume}})).body["snapshot"]["id"]
        assert (await api("DELETE", f"/volumes/{volume}?force=true", version=22)).status == 400
        assert (await api("DELETE", f"/volumes/{volume}?force=true&cascade=true")).status == 403
        assert (await api("DELETE", f"/volumes/{volume}?force=true&cascade=true", who="root")).status == 202
        await api.settled()
        for path in (f"/volumes/{volume}", f"/snapshots/{second}"):
            assert (await api("GET", path)).status == 404
        assert wire.posted


async def test_the_word_of_a_compute_service_on_a_snapshot(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        taken = await snapshot(api, (await api.volume())["id"])
        path = f"/snapshots/{taken}/action"
        said = {"os-update_snapshot_status": {"status": "available", "progress": "90%"}}
        assert (await api("POST", path, json=said)).status == 403
        refused = await api("POST", path, who="root", json=said)
        assert (refused.status, "Snapshot status available not allowed" in text(refused)) == (400, True)
        odd = {"os-update_snapshot_status": {"status": "available", "progress": "half"}}
        assert "percentage" in text(await api("POST", path, who="root", json=odd))


async def test_completion_of_an_extend_that_nobody_waits_for(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        body = {"error": False}
        assert (await api.act(volume, "os-extend_volume_completion", body)).status == 403
        assert (await api.act(volume, "os-extend_volume_completion", body, who="root", version=70)).status == 404
        assert (await api.act(volume, "os-extend_volume_completion", body, who="root")).status == 400
        assert (await api.act(MISSING, "os-extend_volume_completion", body, who="root")).status == 404
        assert (await api.act(volume, "os-extend_volume_completion", {"error": "x"}, who="root")).status == 400


async def test_values_of_the_encryption(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        secret = await types(api, "secret")
        await api("POST", f"/types/{secret}/encryption", who="root", json={"encryption": {"provider": "luks"}})
        made = [await api("POST", "/volumes", json={"volume": {"size": 1, **more}})
                for more in ({"volume_type": "secret"}, {})]  # fmt: skip
        secret_id, plain_id = (answer.body["volume"]["id"] for answer in made)
        found = (await api("GET", f"/volumes/{secret_id}/encryption")).body
        assert (await api("GET", f"/volumes/{secret_id}/encryption/cipher")).body == found["cipher"]
        assert (await api("GET", f"/volumes/{secret_id}/encryption/nope")).status == 404
        assert (await api("GET", f"/volumes/{plain_id}/encryption/cipher")).status == 404
        assert (await api("GET", f"/volumes/{plain_id}/encryption")).body == {}
        await api.settled()


async def test_what_can_be_reset_is_told_and_true(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        assert (await api("GET", "/brickyard/v1/states")).status == 403
        told = (await api("GET", "/brickyard/v1/states", who="root")).body["valid_states"]
        volume = (await api.volume())["id"]
        taken = await snapshot(api, volume)
        for target in (*told["volume"], *VOLUME.statuses - set(told["volume"])):
            if target == "in-use":
                await api.act(volume, "os-attach", {"host_name": "h", "mountpoint": "/dev/vdb"})
            answer = await api.act(volume, "os-reset_status", {"status": target}, who="root")
            assert answer.status == (202 if target in told["volume"] else 400), (target, answer.body)
            await api.act(volume, "os-reset_status", {"status": "available", "attach_status": "detached"}, who="root")
        for target in (*reversed(told["snapshot"]), *SNAPSHOT.statuses - set(told["snapshot"])):
            answer = await api("POST", f"/snapshots/{taken}/action", who="root",
                               json={"os-reset_status": {"status": target}})  # fmt: skip
            assert answer.status == (202 if target in told["snapshot"] else 400), (target, answer.body)


async def test_what_lies_in_a_back_end_that_is_not_configured_any_more_is_deleted_once_it_is_back(
    tmp_path: Path,
) -> None:
    async with volume_api(tmp_path) as api:
        volume = (await api.volume())["id"]
        for backend, status in (("taken-out", "error_deleting"), ("files", None)):
            await api.here.db.write(lambda conn, name=backend: volumes.set_values(conn, volume, backend=name))
            assert (await api("DELETE", f"/volumes/{volume}")).status == 202
            await api.settled()
            found = await api("GET", f"/volumes/{volume}")
            assert found.status == (404 if status is None else 200)
            if status is not None:
                assert found.body["volume"]["status"] == status
                (told,) = (await api("GET", "/messages")).body["messages"]
                assert "is configured on this host" in told["user_message"]
                assert "taken-out" not in told["user_message"]
