"""A volume on a host over the API, on a site of real processes: loop device there, and gone again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.livesite import LiveSite, live_site

pytestmark = [pytest.mark.root, pytest.mark.clients, pytest.mark.timeout(120)]
V1 = "/brickyard/v1"


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("needs root and loop devices")
    with live_site() as site:
        site.people()
        yield site


def finished(site: LiveSite, operation: dict[str, Any], who: str) -> dict[str, Any]:
    _, found = site.call("GET", f"{V1}/operations/{operation['id']}?wait=30", who=who)
    return dict(found["operation"])


def test_attach_look_detach(site: LiveSite) -> None:
    _, made = site.call("POST", "/v3/volumes", who="rita", json={"volume": {"size": 1, "name": "v"}})
    volume = made["volume"]["id"]
    site.settled("rita")
    _, shown = site.call("GET", f"/v3/volumes/{volume}")
    home = shown["volume"]["os-vol-host-attr:host"].split("@")[0]
    far = {"volume_id": volume, "host_id": "host-b" if home == "host-a" else "host-a"}
    status, body = site.call("POST", f"{V1}/attachments", who="rita", json=far)
    assert (status, body["error"]["code"]) == (409, "attachment.no-transport")
    status, body = site.call("POST", f"{V1}/attachments", who="rita", json={"volume_id": volume, "host_id": home})
    assert status == 202
    attachment = body["attachment"]["id"]
    assert finished(site, body["operation"], "rita")["state"] == "done"
    _, there = site.call("GET", f"{V1}/attachments/{attachment}", who="rita")
    device = Path(there["attachment"]["device"]["device"])
    backing = Path("/sys/block", device.name, "loop/backing_file")
    assert backing.read_text().strip().endswith(volume)
    status, lie = site.call("POST", f"/v3/volumes/{volume}/action", json={"os-reset_status": {"status": "available"}})
    assert (status, f"host {home}" in lie["conflictingRequest"]["message"]) == (409, True)
    assert site.call("DELETE", f"/v3/attachments/{attachment}", who="rita")[0] == 409
    assert site.call("DELETE", f"/v3/volumes/{volume}", who="rita")[0] == 400
    _, truth = site.call("POST", f"{V1}/volumes/{volume}/repair", json={"dry_run": True})
    assert truth["repair"]["agrees"] is True
    assert truth["repair"]["host"]["attached"][0]["attachment_id"] == attachment
    _, gone = site.call("DELETE", f"{V1}/attachments/{attachment}", who="rita")
    assert finished(site, gone["operation"], "rita")["state"] == "done"
    assert not backing.exists() or not backing.read_text().strip().endswith(volume)
    assert site.call("GET", f"/v3/volumes/{volume}", who="rita")[1]["volume"]["status"] == "available"
    # A reset by force cuts the device off first; the status follows from that.
    _, body = site.call("POST", f"{V1}/attachments", who="rita", json={"volume_id": volume, "host_id": home})
    assert finished(site, body["operation"], "rita")["state"] == "done"
    _, there = site.call("GET", f"{V1}/attachments/{body['attachment']['id']}", who="rita")
    backing = Path("/sys/block", Path(there["attachment"]["device"]["device"]).name, "loop/backing_file")
    assert backing.read_text().strip().endswith(volume)
    forced = {"os-reset_status": {"status": "available", "attach_status": "detached", "force": True}}
    assert site.call("POST", f"/v3/volumes/{volume}/action", json=forced)[0] == 202
    site.settled("rita")
    assert not backing.exists() or not backing.read_text().strip().endswith(volume)
    assert site.call("GET", f"/v3/volumes/{volume}", who="rita")[1]["volume"]["status"] == "available"
    assert site.call("DELETE", f"/v3/volumes/{volume}", who="rita")[0] == 202
    site.settled("rita")


def test_a_device_that_is_open_is_taken_away_by_force_alone(site: LiveSite) -> None:
    _, made = site.call("POST", "/v3/volumes", who="rita", json={"volume": {"size": 1, "name": "open"}})
    volume = made["volume"]["id"]
    site.settled("rita")
    home = site.call("GET", f"/v3/volumes/{volume}")[1]["volume"]["os-vol-host-attr:host"].split("@")[0]
    _, body = site.call("POST", f"{V1}/attachments", who="rita", json={"volume_id": volume, "host_id": home})
    attachment = body["attachment"]["id"]
    assert finished(site, body["operation"], "rita")["state"] == "done"
    _, there = site.call("GET", f"{V1}/attachments/{attachment}", who="rita")
    device = Path(there["attachment"]["device"]["device"])
    backing = Path("/sys/block", device.name, "loop/backing_file")
    with device.open("r+b", buffering=0) as held:
        assert held.write(b"kept" * 1024) == 4096
        _, body = site.call("DELETE", f"{V1}/attachments/{attachment}", who="rita")
        ended = finished(site, body["operation"], "admin")
        assert (ended["state"], "a process has it open" in ended["error"]["message"]) == ("failed", True), ended
        assert str(device) in ended["error"]["message"]
        assert "brickyard-agent explain" in ended["error"]["hint"]
        assert site.call("GET", f"/v3/volumes/{volume}")[1]["volume"]["status"] == "in-use"
        held.seek(0)
        assert held.read(4) == b"kept"
        assert site.call("DELETE", f"{V1}/attachments/{attachment}?force=true", who="rita")[0] == 403
        reset = {"status": "available", "attach_status": "detached"}
        status, refused = site.call("POST", f"/v3/volumes/{volume}/action", json={"os-reset_status": reset})
        assert (status, home in refused["conflictingRequest"]["message"]) == (409, True)
        forced = {"os-reset_status": {**reset, "force": True}}
        assert site.call("POST", f"/v3/volumes/{volume}/action", json=forced)[0] == 202
        site.settled("rita")
        shown = site.call("GET", f"/v3/volumes/{volume}")[1]["volume"]
        assert (shown["status"], shown["attachments"]) == ("available", [])
        held.seek(0)
        with pytest.raises(OSError):
            held.write(b"lost" * 1024)
        # What is left of it is in nobody's way: the volume can be used, and deleted.
        _, body = site.call("POST", f"{V1}/attachments", who="rita", json={"volume_id": volume, "host_id": home})
        assert finished(site, body["operation"], "rita")["state"] == "done"
        attachment = body["attachment"]["id"]
        _, there = site.call("GET", f"{V1}/attachments/{attachment}", who="rita")
        with Path(there["attachment"]["device"]["device"]).open("rb") as again:
            assert again.read(4) == b"kept"
            _, body = site.call("DELETE", f"{V1}/attachments/{attachment}?force=true")
            assert finished(site, body["operation"], "admin")["state"] == "done"
        assert site.call("DELETE", f"/v3/volumes/{volume}", who="rita")[0] == 202
        site.settled("rita")
        assert site.call("GET", f"/v3/volumes/{volume}", who="rita")[0] == 404
    assert not backing.exists() or not backing.read_text().strip().endswith(f"{volume} (deleted)")


def test_hosts_and_tokens(site: LiveSite) -> None:
    _, found = site.call("GET", f"{V1}/hosts")
    assert {(host["id"], host["reachable"]) for host in found["hosts"]} == {("host-a", True), ("host-b", True)}
    assert site.call("GET", f"{V1}/hosts", who="rita")[0] == 403
    _, host = site.call("GET", f"{V1}/hosts/host-a")
    assert host["host"]["facts"]["host"] == "host-a"
    status, token = site.call("POST", f"{V1}/hosts/enrol-token", json={"host": "host-c", "lifetime_s": 60})
    assert (status, token["token"].startswith("byj1."), token["address"]) == (201, True, "127.0.0.1")
    assert site.call("POST", f"{V1}/hosts/enrol-token", who="rita", json={})[0] == 403
