"""A site that is read-only: what changes something is refused, what operators do with the site itself goes on."""

from __future__ import annotations

from pathlib import Path

from coordinator.state import issues
from tests.unit.coordinator.api.volumesite import volume_api

V1 = "/brickyard/v1"


async def test_nothing_is_changed_until_it_may_be_again(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume = await api.volume()
        path = f"{V1}/read-only"
        assert (await api("PUT", path, json={"reason": "x"})).status == 403
        assert (await api("GET", path, who="root")).body["read_only"] == {"since": None, "reason": None}
        told = (await api("PUT", path, who="root", json={"reason": "it moves"})).body["read_only"]
        assert told["reason"] == "it moves"
        for method, where, body in (
            ("POST", "/volumes", {"volume": {"size": 1}}),
            ("DELETE", f"/volumes/{volume['id']}", None),
            ("PUT", f"/volumes/{volume['id']}", {"volume": {"name": "other"}}),
            ("POST", f"/volumes/{volume['id']}/action", {"os-extend": {"new_size": 2}}),
        ):
            refused = await api(method, where, json=body) if body else await api(method, where)
            assert (refused.status, refused.headers["Retry-After"]) == (503, "60"), refused.body
            assert "it moves" in str(refused.body)
        assert (await api("GET", f"/volumes/{volume['id']}")).body["volume"]["status"] == "available"
        assert (await api("POST", f"{V1}/hosts/host-a/disable", who="root", json={})).status == 200
        assert (await api("POST", f"{V1}/hosts/host-a/enable", who="root", json={})).status == 200
        (issue,) = await api.here.db.read(issues.listing)
        assert (issue.code, issue.remedy) == ("site.read-only", "When it is time: brickyard site read-write")
        since = told["since"]
        again = (await api("PUT", path, who="root", json={"reason": "until 16:00"})).body["read_only"]
        assert again == {"since": since, "reason": "until 16:00"}
        assert (await api("DELETE", path, who="root")).status == 204
        assert (await api("DELETE", path, who="root")).status == 204
        assert await api.here.db.read(issues.listing) == []
        assert (await api("DELETE", f"/volumes/{volume['id']}")).status == 202
        await api.settled()


async def test_it_is_said_why(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        for body in ({}, {"reason": ""}, {"reason": "x" * 201}, {"reason": "x", "until": "y"}):
            assert (await api("PUT", f"{V1}/read-only", who="root", json=body)).status == 400
        assert (await api("GET", f"{V1}/read-only", who="root")).body["read_only"]["reason"] is None
