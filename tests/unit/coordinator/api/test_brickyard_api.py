"""Hosts, operations, host attachments, issues, events and repair over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from agent.base.ids import new_id
from coordinator.api.brickyard import events
from coordinator.state import issues, operations
from coordinator.state.issues import Issue
from coordinator.state.tables.operations import operations as operation_table
from coordinator.state.tables.volumes import volumes as volume_table
from coordinator.state.transition import enter, move
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.volumesite import Api, volume_api

V1 = "/brickyard/v1"
GIB = 1 << 30


async def test_hosts(tmp_path: Path) -> None:
    async with volume_api(tmp_path, ("host-a", "host-b")) as api:
        assert (await api("GET", f"{V1}/hosts")).status == 403
        first = (await api("GET", f"{V1}/hosts?limit=1", who="root")).body
        assert ([host["id"] for host in first["hosts"]], first["next_marker"]) == (["host-a"], "host-a")
        second = (await api("GET", f"{V1}/hosts?marker=host-a", who="root")).body
        assert ([host["id"] for host in second["hosts"]], second["next_marker"]) == (["host-b"], None)
        path = f"{V1}/hosts/host-a"
        shown = (await api("GET", path, who="root")).body["host"]
        assert shown["pools"][0]["backend"] == "files"
        off = await api("POST", f"{path}/disable", who="root", json={"reason": "repair"})
        assert (off.body["host"]["enabled"], off.body["host"]["disabled_reason"]) == (False, "repair")
        volume = await api.volume()
        assert (await api("GET", f"/volumes/{volume['id']}", who="root")).body["volume"]["os-vol-host-attr:host"] \
            .startswith("host-b@")  # fmt: skip
        assert (await api("POST", f"{path}/enable", who="root", json={})).body["host"]["enabled"] is True
        assert (await api("GET", f"{V1}/hosts/moon", who="root")).status == 404
        assert (await api("POST", f"{V1}/hosts/moon/disable", who="root", json={})).status == 404
        assert (await api("POST", f"{V1}/hosts/enrol-token", json={})).status == 403


async def test_operations(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        listed = (await api("GET", f"{V1}/operations?resource_id={volume['id']}")).body["operations"]
        assert [(item["kind"], item["state"], item["steps"]["make"]) for item in listed] == [
            ("create_volume", "done", "done")
        ]
        path = f"{V1}/operations/{listed[0]['id']}"
        assert (await api("GET", f"{path}?wait=20")).body["operation"]["state"] == "done"
        assert (await api("GET", path, who="other")).status == 404
        assert (await api("GET", f"{V1}/operations", who="other")).body["operations"] == []
        assert (await api("GET", f"{V1}/operations?all_projects=1", who="other")).status == 403
        assert len((await api("GET", f"{V1}/operations?all_projects=1", who="root")).body["operations"]) == 1
        assert (await api("POST", f"{path}/cancel")).status == 409
        assert (await api("POST", f"{path}/cancel", who="looker")).status == 403
        assert (await api("POST", f"{path}/retry", who="root")).status == 409
        assert (await api("GET", f"{path}?wait=x")).status == 400


async def test_watching_until_the_end(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        wire = api.here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        made = await api("POST", "/volumes", json={"volume": {"size": 1}})
        found = (await api("GET", f"{V1}/operations?active=true")).body["operations"][0]
        path = f"{V1}/operations/{found['id']}"
        assert found["resource_id"] == made.body["volume"]["id"]
        assert (await api("GET", f"{path}?wait=1")).body["operation"]["state"] == "running"
        watching = asyncio.create_task(api("GET", f"{path}?wait=20&after=0"))
        api.here.engine.progress(found["id"], {"bytes": 5})
        seen = (await watching).body["operation"]
        assert (seen["progress"], seen["seq"]) == ({"bytes": 5}, 1)
        last = asyncio.create_task(api("GET", f"{path}?wait=20&after=1"))
        await asyncio.sleep(0.05)
        wire.held.set()
        assert (await last).body["operation"]["state"] == "done"


async def test_cancelled_work_is_undone(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        wire = api.here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        await api("POST", "/volumes", json={"volume": {"size": 1}})
        found = (await api("GET", f"{V1}/operations?active=true")).body["operations"][0]
        answer = await api("POST", f"{V1}/operations/{found['id']}/cancel")
        assert (answer.status, answer.body["operation"]["cancel_requested"]) == (202, True)
        wire.held.set()
        await api.settled()
        assert (await api("GET", f"{V1}/operations/{found['id']}")).body["operation"]["state"] in {"cancelled", "done"}


async def test_an_undo_given_up_is_tried_again(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await api.volume()
        found = (await api("GET", f"{V1}/operations")).body["operations"][0]
        error = {"code": "operation.undo-failed", "status": 500, "context": {"step": "make", "cause": "x"}}
        given_up = update(operation_table).where(operation_table.c.id == found["id"])
        await api.here.db.write(lambda conn: conn.execute(given_up.values(state="needs-attention", error=error)))
        answer = await api("POST", f"{V1}/operations/{found['id']}/retry", who="root")
        assert (answer.status, answer.body["operation"]["state"]) == (202, "undoing")
        await api.settled()
        ended = await api.here.db.read(lambda conn: operations.get(conn, found["id"]))
        assert (ended.state, ended.epoch) == ("failed", 2)
        assert not (api.here.folders["host-a"] / "volumes" / "volumes" / found["resource_id"]).exists()


def kept_by_agent(conn: Connection, volume_id: str, host: str = "host-a") -> str:
    """What accepting and finishing an attachment leaves in the rows."""
    move(conn, "volume", volume_id, "host_attach")
    values = {"volume_id": volume_id, "project_id": P1, "owner": "agent", "host_id": host, "attached_host": host}
    row = enter(conn, "attachment", "host_attach", id=new_id(), **values)
    device = {"attachment_id": row.id, "device": "/dev/loop7", "raw_device": "/dev/loop7", "raw": False, "diskseq": 9}
    move(conn, "attachment", row.id, "host_attached", device=device, mountpoint="/dev/loop7")
    move(conn, "volume", volume_id, "attachment_complete", attach_status="attached")
    return str(row.id)


async def test_host_attachments(tmp_path: Path) -> None:
    async with volume_api(tmp_path, ("host-a", "host-b")) as api:
        await api("POST", f"{V1}/hosts/host-b/disable", who="root", json={})
        volume = await api.volume()
        wanted = {"volume_id": volume["id"], "host_id": "host-b"}
        far = await api("POST", f"{V1}/attachments", json=wanted)
        assert (far.status, far.body["error"]["code"]) == (409, "attachment.no-transport")
        assert "iSCSI" in far.body["error"]["hint"]
        assert (await api("POST", f"{V1}/attachments", json={**wanted, "host_id": "moon"})).status == 404
        assert (await api("POST", f"{V1}/attachments", json=wanted, who="other")).status == 404
        assert (await api("POST", f"{V1}/attachments", json=wanted, who="looker")).status == 403
        kept = await api.here.db.write(lambda conn: kept_by_agent(conn, volume["id"]))
        shown = (await api("GET", f"{V1}/attachments/{kept}")).body["attachment"]
        assert (shown["status"], shown["device"]["device"]) == ("attached", "/dev/loop7")
        assert [item["id"] for item in (await api("GET", f"{V1}/attachments")).body["attachments"]] == [kept]
        assert (await api("GET", f"{V1}/attachments?host_id=host-b")).body["attachments"] == []
        assert (await api("GET", f"{V1}/attachments/{kept}", who="other")).status == 404
        refused = await api("DELETE", f"/attachments/{kept}")
        assert refused.status == 409
        assert f"brickyard attachment delete {kept}" in refused.body["conflictingRequest"]["message"]
        for body in ({"status": "available"}, {"status": "available", "attach_status": "detached"}):
            lie = await api.act(volume["id"], "os-reset_status", body, who="root")
            assert lie.status == 409
            assert "host host-a" in lie.body["conflictingRequest"]["message"]
        detail = (await api("GET", f"/volumes/{volume['id']}", who="root")).body["volume"]
        assert detail["status"] == "in-use"
        assert [(item["attachment_id"], item["host_name"]) for item in detail["attachments"]] == [(kept, "host-a")]
        assert (await api("DELETE", f"/volumes/{volume['id']}")).status == 400
        assert (await api.act(volume["id"], "os-force_delete", who="root")).status == 400


async def test_issues_and_events(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        for project in (P1, "b" * 32):
            issue = Issue("volume.orphan", "volume", new_id(), "Something.", "Do it.", project_id=project)
            await api.here.db.write(lambda conn, issue=issue: issues.raise_issue(conn, issue))
        mine = (await api("GET", f"{V1}/issues")).body["issues"]
        assert [item["project_id"] for item in mine] == [P1]
        everything = (await api("GET", f"{V1}/issues", who="root")).body["issues"]
        assert len(everything) == 2
        assert (await api("GET", f"{V1}/issues/{mine[0]['id']}")).body["issue"]["remedy"] == "Do it."
        foreign = next(item["id"] for item in everything if item["project_id"] != P1)
        assert (await api("GET", f"{V1}/issues/{foreign}")).status == 404
        assert (await api("GET", f"{V1}/issues?code=none")).body == {"issues": [], "next_marker": None}
        found = (await api("GET", f"{V1}/events")).body
        assert [item["type"] for item in found["events"]] == ["create_volume.start", "create_volume.end"]
        assert {item["resource_id"] for item in found["events"]} == {volume["id"]}
        after = (await api("GET", f"{V1}/events?after={found['next_after']}")).body
        assert after == {"events": [], "next_after": found["next_after"], "missed": False}
        assert (await api("GET", f"{V1}/events", who="other")).body["events"] == []
        assert (await api("GET", f"{V1}/events?all_projects=1", who="other")).status == 403


async def test_what_happened_to_one_volume_is_told_in_its_order_with_times(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume, _ = await api.volume(), await api.volume()
        await api.act(volume["id"], "os-extend", {"new_size": 2})
        await api.settled()
        await api("DELETE", f"/volumes/{volume['id']}")
        await api.settled()
        path = f"{V1}/events?resource_id={volume['id']}"
        history = (await api("GET", path)).body["events"]
        statuses = [(one["type"], one["payload"]["volume"]["status"]) for one in history]
        assert statuses == [
            ("create_volume.start", "creating"), ("create_volume.end", "available"),
            ("extend_volume.start", "extending"), ("extend_volume.end", "available"),
            ("delete_volume.start", "deleting"), ("delete_volume.end", "deleted"),
        ]  # fmt: skip
        times = [one["at"] for one in history]
        assert times == sorted(times)
        done = (await api("GET", f"{V1}/operations?resource_id={volume['id']}")).body["operations"]
        assert [one["kind"] for one in done] == ["delete_volume", "extend_volume", "create_volume"]
        assert all(one["created_at"] <= one["finished_at"] for one in done)


async def test_who_waits_for_events_hears_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LOOK_S", 3600.0)  # nobody looks without being told
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        after = (await api("GET", f"{V1}/events")).body["next_after"]
        waiting = asyncio.ensure_future(api("GET", f"{V1}/events?after={after}&wait=30"))
        await api("PUT", f"/volumes/{volume['id']}", json={"volume": {"name": "new"}})
        (found,) = (await waiting).body["events"]
        assert (found["type"], found["payload"]["volume"]["name"]) == ("update_volume.end", "new")
        assert (await api("GET", f"{V1}/events?after={found['seq']}&wait=1")).body["next_after"] == found["seq"]
        ends = (await api("GET", f"{V1}/events?type=create_volume.end")).body["events"]
        assert [one["payload"]["volume"]["status"] for one in ends] == ["available"]
        assert (await api("GET", f"{V1}/events?resource_id={new_id()}")).body["events"] == []
        assert (await api("GET", f"{V1}/events?wait=soon")).status == 400


async def repair(api: Api, volume: dict[str, Any], *, dry_run: bool = True) -> dict[str, Any]:
    answer = await api("POST", f"{V1}/volumes/{volume['id']}/repair", who="root", json={"dry_run": dry_run})
    assert answer.status == 200, answer.body
    return dict(answer.body["repair"])


async def spoil(api: Api, volume: dict[str, Any], **values: Any) -> None:
    table = volume_table
    await api.here.db.write(lambda conn: conn.execute(update(table).where(table.c.id == volume["id"]).values(**values)))


def data(api: Api, volume: dict[str, Any]) -> Path:
    return api.here.folders["host-a"] / "volumes" / "volumes" / str(volume["id"])


async def test_repair_of_what_agrees(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        found = await repair(api, volume, dry_run=False)
        assert (found["agrees"], found["plan"], found["done"]) == (True, [], [])
        assert (found["row"]["status"], found["host"]["held"]["device_bytes"]) == ("available", GIB)
        answer = await api("POST", f"{V1}/volumes/{volume['id']}/repair", json={})
        assert answer.status == 403


@pytest.mark.parametrize("status", ["error", "error_extending", "error_deleting"])
async def test_repair_makes_whole_data_available(tmp_path: Path, status: str) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        await spoil(api, volume, status=status, device_bytes=GIB // 2, usable_bytes=GIB // 2)
        planned = await repair(api, volume)
        assert [(item["kind"], item["safe"]) for item in planned["plan"]] == [
            ("correct-size", True), ("make-available", True),
        ]  # fmt: skip
        assert (planned["done"], (await repair(api, volume))["row"]["status"]) == ([], status)
        done = await repair(api, volume, dry_run=False)
        assert [item["kind"] for item in done["done"]] == ["correct-size", "make-available"]
        after = await repair(api, volume)
        assert (after["agrees"], after["row"]["status"], after["row"]["usable_bytes"]) == (True, "available", GIB)


async def test_repair_of_missing_data(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        data(api, volume).rename(tmp_path / "away")
        assert [item["kind"] for item in (await repair(api, volume, dry_run=False))["done"]] == ["mark-damaged"]
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["status"] == "error"
        assert [item["kind"] for item in (await repair(api, volume, dry_run=False))["plan"]] == ["by-hand"]
        (tmp_path / "away").rename(data(api, volume))
        assert [item["kind"] for item in (await repair(api, volume, dry_run=False))["done"]] == ["make-available"]
        data(api, volume).unlink()
        await spoil(api, volume, status="error_deleting")
        ended = await repair(api, volume, dry_run=False)
        assert ([item["kind"] for item in ended["done"]], ended["operation"]["kind"]) == (
            ["finish-delete"], "delete_volume",
        )  # fmt: skip
        await api.settled()
        assert (await api("GET", f"/volumes/{volume['id']}")).status == 404


async def test_repair_leaves_to_people_what_is_not_safe(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        await spoil(api, volume, status="error", device_bytes=2 * GIB)
        assert [item["kind"] for item in (await repair(api, volume, dry_run=False))["plan"]] == ["by-hand"]
        await spoil(api, volume, device_bytes=GIB, launched_at=None)
        assert "never finished" in (await repair(api, volume, dry_run=False))["plan"][0]["sentence"]
        wire = api.here.hosts.wires["host-a"]
        wire.lose_requests = 1 << 30
        away = await repair(api, volume, dry_run=False)
        wire.lose_requests = 0
        assert (away["host"]["reached"], away["plan"][0]["kind"], away["done"]) == (False, "by-hand", [])
        await spoil(api, volume, status="available", launched_at=volume_table.c.created_at)
        kept = await api.here.db.write(lambda conn: kept_by_agent(conn, volume["id"]))
        found = await repair(api, volume, dry_run=False)
        assert "The host does not know attachment" in found["plan"][0]["sentence"]
        assert found["row"]["attachments"][0]["id"] == kept
        wire.attached = [
            {"attachment_id": new_id(), "volume_id": volume["id"], "backend": "files", "device": "/dev/loop9",
             "raw_device": "/dev/loop9", "generation": {"incarnation": 1, "sequence": 1}},
        ]  # fmt: skip
        found = await repair(api, volume, dry_run=False)
        assert any("no row knows" in item["sentence"] for item in found["plan"])
        wire.held = asyncio.Event()
        fresh = await api("POST", "/volumes", json={"volume": {"size": 1}})
        busy = await repair(api, fresh.body["volume"], dry_run=False)
        assert [item["kind"] for item in busy["plan"]] == ["wait"]
        wire.held.set()


async def test_evicting_a_host(tmp_path: Path) -> None:
    async with volume_api(tmp_path, ("host-a", "host-b")) as api:
        volume = await api.volume()
        name = (await api("GET", f"/volumes/{volume['id']}", who="root")).body["volume"]["os-vol-host-attr:host"]
        name = name.partition("@")[0]
        path = f"{V1}/hosts/{name}/evict"
        assert (await api("POST", path, json={})).status == 403
        assert (await api("POST", f"{V1}/hosts/moon/evict", who="root", json={})).status == 404
        assert (await api("POST", path, who="root", json={"proof": "fence"})).status == 400
        shown = (await api("POST", path, who="root", json={})).body["eviction"]
        assert (shown["dry_run"], shown["answers"], shown["evidence_needed"]) == (True, True, True)
        assert [(part["what"], part["ids"]) for part in shown["parts"]] == [("volumes", [volume["id"]])]
        proof = {"dry_run": False, "proof": "operator", "words": "its board is broken"}
        assert (await api("POST", path, who="root", json=proof)).body["error"]["code"] == "host.answers"
        api.here.hosts.wires[name].lose_requests = 1 << 30
        refused = await api("POST", path, who="root", json={"dry_run": False})
        assert (refused.status, refused.body["error"]["code"]) == (409, "host.evidence-needed")
        done = (await api("POST", path, who="root", json=proof)).body["eviction"]
        assert (done["dry_run"], done["answers"], done["evidence_needed"]) == (False, False, False)
        assert (await api("GET", f"{V1}/hosts/{name}", who="root")).status == 404
        (record,) = (await api("GET", f"{V1}/evictions", who="root")).body["evictions"]
        assert (record["host_id"], record["evidence"], record["words"]) == (name, "operator", "its board is broken")
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["status"] == "error"
