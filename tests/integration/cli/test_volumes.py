"""Volumes, what they hold and where they are attached, by `brickyard`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.cli.site import Site


def test_a_volume_from_creation_to_deletion(site: Site) -> None:
    volume = site.ok("volume", "create", "life", "--size", "1", "--wait", "-o", "value").strip()
    assert site.run("volume", "show", "life", "--json").json["status"] == "available"
    assert site.ok("volume", "extend", "life", "2", "--wait", "-o", "value", "-c", "size") == "2\n"
    site.ok("volume", "set", "life", "--name", "lived", "--property", "a=b")
    assert site.run("volume", "show", volume, "--json").json["metadata"] == {"a": "b"}
    snapshot = site.ok("snapshot", "create", "lived", "snap", "--wait", "-o", "value").strip()
    assert site.ok("snapshot", "list", "-o", "value", "-c", "id") == f"{snapshot}\n"
    site.ok("volume", "create", "copy", "--snapshot", "snap", "--wait")
    assert site.ok("volume", "list", "-o", "value", "-c", "name").split() == ["copy", "lived"]
    site.ok("volume", "delete", "copy", "--yes", "--wait")
    site.ok("snapshot", "delete", "snap", "--yes", "--wait")
    site.ok("volume", "delete", "lived", "--yes", "--wait")
    assert site.run("volume", "list", "--json").json == []


def test_leave_and_come_back(site: Site) -> None:
    volume = site.ok("volume", "create", "leaving", "--size", "1", "--wait", "-o", "value").strip()
    pool = site.run("volume", "show", volume, "--json").json["os-vol-host-attr:host"]
    site.ok("volume", "unmanage", "leaving", "--yes", "--wait")
    (row,) = [one for one in json.loads(site.ok("volume", "manageable", pool, "--json")) if one["safe_to_manage"]]
    assert row["reference"] == f"volume-{volume}"
    site.ok("volume", "manage", pool, row["reference"], "--name", "back", "--property", "a=b", "--wait")
    assert site.run("volume", "show", "back", "--json").json["status"] == "available"
    site.ok("volume", "delete", "back", "--yes", "--wait")


def test_images_go_up_and_come_back(site: Site, tmp_path: Path) -> None:
    source, back = tmp_path / "source.raw", tmp_path / "back.raw"
    source.write_bytes(os.urandom(3 << 20))
    site.ok("image", "create", "golden", "--file", str(source), "--property", "a=b")
    shown = site.run("image", "show", "golden", "--json").json
    assert (shown["status"], shown["size"], shown["a"]) == ("active", 3 << 20, "b")
    assert site.ok("image", "save", "golden", str(back), "-o", "value").strip() == str(back)
    assert back.read_bytes() == source.read_bytes()
    assert site.run("image", "save", "golden", str(back)).code == 5
    site.ok("volume", "create", "golden", "--image", "golden", "--size", "1", "--wait")
    site.ok("volume", "delete", "golden", "--yes", "--wait")
    site.ok("image", "delete", "golden", "--yes")
    assert site.run("image", "list", "--json").json == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices")
def test_attach_shows_the_device_and_detach_leaves_nothing(site: Site) -> None:
    volume = site.ok("volume", "create", "plug", "--size", "1", "--wait", "-o", "value").strip()
    made = json.loads(site.ok("volume", "attach", "plug", "host-a", "--wait", "--json"))
    device = made["device"]["device"]
    assert site.ok("attachment", "list", "-o", "value", "-c", "path") == f"{device}\n"
    assert f"device {device}" in site.agent("explain", volume).out
    (row,) = json.loads(site.ok("volume", "detach", "plug", "host-a", "--dry-run", "--json"))
    assert row["loses"].startswith(f"the device {device} on host host-a")
    assert json.loads(site.ok("attachment", "delete", made["id"], "--dry-run", "--json"))[0]["loses"] == row["loses"]
    refused = json.loads(site.ok("volume", "delete", "plug", "--dry-run", "--json"))[0]["refused"]
    assert refused.startswith("it is attached to")
    site.ok("volume", "detach", "plug", "host-a", "--wait")
    assert site.run("attachment", "list", "--json").json == []
    assert site.run("volume", "detach", "plug", "--json", stdin="").json["error"]["code"] == "cli.not-attached"
    backing = Path("/sys/block") / device.removeprefix("/dev/") / "loop" / "backing_file"
    assert not backing.exists() or volume not in backing.read_text()
    site.ok("volume", "delete", "plug", "--yes", "--wait")
