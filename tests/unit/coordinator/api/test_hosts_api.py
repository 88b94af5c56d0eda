"""Back ends as hosts over HTTP, and capabilities of one that can not be asked."""

from __future__ import annotations

from pathlib import Path

from tests.unit.coordinator.api.volumesite import volume_api


async def test_hosts_tell_what_lies_on_them_and_are_disabled(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await api.volume(size=2)
        volume = await api.volume(who="other", size=3)
        made = await api("POST", "/snapshots", who="other", json={"snapshot": {"volume_id": volume["id"]}})
        assert made.status == 202
        await api.settled()
        listed = (await api("GET", "/os-hosts", who="root")).body["hosts"]
        assert [(host["host_name"], host["service-state"]) for host in listed] == [("host-a@files", "enabled")]
        assert (await api("GET", "/os-hosts?zone=none", who="root")).body == {"hosts": []}
        shown = (await api("GET", "/os-hosts/host-a@files", who="root")).body["host"]
        rows = {row["resource"]["project"]: row["resource"] for row in shown}
        assert len(rows) == 3
        total = rows["(total)"]
        assert (total["volume_count"], total["total_volume_gb"]) == ("2", "5")
        assert (total["snapshot_count"], total["total_snapshot_gb"]) == ("1", "3")
        put = await api("PUT", "/os-hosts/host-a@files", who="root", json={"status": "disable"})
        assert (put.status, put.body) == (200, {"host": "host-a@files", "status": "disabled"})
        again = (await api("GET", "/os-hosts", who="root")).body["hosts"]
        assert again[0]["service-state"] == "disabled"
        assert (await api("PUT", "/os-hosts/host-a@files", who="root", json={"status": "off"})).status == 400
        assert (await api("GET", "/os-hosts/host-b", who="root")).status == 404
        assert (await api("GET", "/os-hosts")).status == 403


async def test_capabilities_of_who_does_not_answer(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        answer = await api("GET", "/capabilities/host-a@files", who="root")
        assert answer.status == 503
        assert (await api("GET", "/capabilities/host-b@files", who="root")).status == 404
        assert (await api("GET", "/capabilities/host-a@files")).status == 403
