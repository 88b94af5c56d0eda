"""A back end of two pools, on a site of real processes and by the real clients: two file systems of 3 and 5 GiB."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.livesite import LiveSite, live_site

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]
SIZES = {"small": 3, "big": 5}


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    if os.geteuid():
        pytest.skip("needs root: file systems are mounted")
    top = Path(tempfile.mkdtemp(prefix="brickyard-pools-", dir="/var/tmp"))
    top.chmod(0o755)
    mounted = []
    try:
        sets = ["backends.files.max_over_subscription=1.0", 'backends.files.capabilities.kind="both"']
        for name, size in SIZES.items():
            at = top / name
            at.mkdir()
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}g,mode=777", "none", at],
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
            mounted.append(at)
            sets += [
                f"backends.files.pools.{name}.path={at}/it",
                f'backends.files.pools.{name}.capabilities.is="{name}"',
            ]
        sets.append('backends.files.pools.small.capabilities.kind="own"')
        with live_site(*sets, agents=1) as made:
            yield made
    finally:
        for at in mounted:
            subprocess.run(["umount", "-l", at], check=False)
        shutil.rmtree(top, ignore_errors=True)


def create(site: LiveSite, size: int, *words: str, fails: bool = False) -> dict[str, Any]:
    made = site.openstack("volume", "create", "--size", str(size), *words)
    site.settled()
    found = dict(site.openstack("volume", "show", made["id"]))
    assert found["status"] == ("error" if fails else "available"), found
    return found


def pool(found: dict[str, Any]) -> str:
    return str(found["os-vol-host-attr:host"]).partition("#")[2]


def pools(site: LiveSite) -> dict[str, dict[str, Any]]:
    found = site.call("GET", f"/v3/{site.session().get_project_id()}/scheduler-stats/get_pools?detail=True")[1]
    return {one["name"].partition("#")[2]: one["capabilities"] for one in found["pools"]}


def test_each_pool_is_shown_with_its_own_words_and_space(site: LiveSite) -> None:
    listed = site.run("cinder", "get-pools", "--detail")
    assert {name in listed for name in ("@files#small", "@files#big")} == {True}
    found = pools(site)
    assert set(found) == set(SIZES)
    for name, told in found.items():
        assert (told["is"], told["volume_backend_name"], told["pool_name"]) == (name, "files", name)
        assert told["total_capacity_gb"] == SIZES[name]
    assert (found["small"]["kind"], found["big"]["kind"]) == ("own", "both")


def test_a_volume_lies_where_it_fits_and_one_that_fits_nowhere_is_refused(site: LiveSite) -> None:
    volume = create(site, 4)
    assert pool(volume) == "big"
    refused = create(site, 6, fails=True)
    told = site.call("GET", f"/v3/{site.session().get_project_id()}/messages")[1]["messages"]
    mine = [one["user_message"] for one in told if one["resource_uuid"] == refused["id"]]
    assert any("[CapacityFilter]" in text and "#" not in text for text in mine), mine
    (work,) = site.call("GET", f"/brickyard/v1/operations?resource_id={refused['id']}")[1]["operations"]
    assert "#small" in work["error"]["message"]
    assert "#big" in work["error"]["message"]
    site.run("openstack", "volume", "delete", volume["id"], refused["id"])
    site.settled()


def test_a_type_chooses_the_pool_and_what_is_made_of_a_volume_stays_there(site: LiveSite) -> None:
    site.run("openstack", "volume", "type", "create", "little", "--property", "is=small")
    site.run("openstack", "volume", "type", "create", "large", "--property", "is=big")
    listed = site.run("cinder", "get-pools", "--filters", "volume_type=little", "--detail")
    assert ("@files#small" in listed, "@files#big" in listed) == (True, False), listed
    first = create(site, 1, "--type", "little")
    assert pool(first) == "small"
    snapshot = site.openstack("volume", "snapshot", "create", "--volume", first["id"], "snap")
    site.settled()
    copy = create(site, 1, "--snapshot", snapshot["id"])
    assert pool(copy) == "small"
    refused = site.run("openstack", "volume", "set", "--type", "large", first["id"], fails=True)
    assert "is=big" in refused
    assert "CapabilitiesFilter" in refused
    # 1 + 1 of 3 GiB are promised.
    site.run("openstack", "volume", "set", "--size", "4", copy["id"])
    site.settled()
    shown = site.openstack("volume", "show", copy["id"])
    assert (shown["status"], shown["size"]) == ("available", 1)
    # The host counts the snapshot, too.
    site.run("openstack", "volume", "snapshot", "delete", snapshot["id"])
    site.settled()
    site.run("openstack", "volume", "set", "--size", "2", copy["id"])
    site.settled()
    assert site.openstack("volume", "show", copy["id"])["size"] == 2
    files = list(Path("/var/tmp").glob(f"brickyard-pools-*/small/it/volumes/{copy['id']}"))
    assert [path.stat().st_size for path in files] == [2 << 30]
    site.run("openstack", "volume", "delete", first["id"], copy["id"])
    site.settled()
    assert json.loads(site.run("openstack", "volume", "list", "-f", "json")) == []
    assert not files[0].exists()
    assert {told["allocated_capacity_gb"] for told in pools(site).values()} == {0.0}
