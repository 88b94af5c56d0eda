"""Actions of volumes and snapshots with the cinder shell, the openstack client and the library, on a real site."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cinderclient import exceptions

from tests.clients.livesite import BIN, LiveSite, live_site
from tests.clients.test_volume_clients import cell, library

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]
SERVER = "11111111-2222-3333-4444-555555555555"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "adopt.md"


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    with live_site(agents=1) as site:
        site.people()
        yield site


def made(site: LiveSite, name: str, who: str = "rita", **more: Any) -> Any:
    volume = library(site, who).volumes.create(1, name=name, **more)
    site.settled(who)
    return library(site, who).volumes.get(volume.id)


def home(site: LiveSite, volume_id: str) -> tuple[str, Path]:
    """The pool that a volume lies on, and the folder of its back end."""
    pool = site.call("GET", f"/v3/volumes/{volume_id}")[1]["volume"]["os-vol-host-attr:host"]
    path = next(site.folder.rglob(f"volumes/{volume_id}"))
    return pool, path.parents[1]


def test_library_attaches_the_older_way(site: LiveSite) -> None:
    red = library(site, "rita")
    volume = made(site, "older")
    connector = {"host": home(site, volume.id)[0].split("@")[0], "initiator": "iqn.2026-01.org.example:a"}
    red.volumes.reserve(volume)
    info = red.volumes.initialize_connection(volume, connector)
    assert info == red.volumes.initialize_connection(volume, connector)
    assert info["data"]["volume_id"] == volume.id
    red.volumes.attach(volume, SERVER, "/dev/vdb")
    shown = red.volumes.get(volume.id)
    assert (shown.status, shown.attachments[0]["server_id"]) == ("in-use", SERVER)
    red.volumes.begin_detaching(volume)
    red.volumes.roll_detaching(volume)
    red.volumes.begin_detaching(volume)
    red.volumes.terminate_connection(volume, connector)
    red.volumes.detach(volume, shown.attachments[0]["attachment_id"])
    assert red.volumes.get(volume.id).status == "available"
    red.volumes.attach(volume, None, "/dev/vdb", host_name="somewhere")
    forced = site.call("POST", f"/v3/volumes/{volume.id}/action", json={"os-force_detach": {"attachment_id": None}})
    assert forced[0] == 202
    assert red.volumes.get(volume.id).status == "available"
    red.volumes.delete(volume)
    site.settled("rita")


def test_cinder_shell_actions(site: LiveSite) -> None:
    def cinder(*words: str, who: str = "rita", **more: Any) -> str:
        return site.run("cinder", *words, who=who, **more)

    volume = made(site, "one").id
    site.call("POST", "/v3/types", json={"volume_type": {"name": "other"}})
    cinder("retype", "one", "other")
    assert cell(cinder("show", "one"), "volume_type") == "other"
    cinder("image-metadata", "one", "set", "a=b")
    assert "a" in cinder("image-metadata-show", "one")
    cinder("readonly-mode-update", "one", "True")
    cinder("set-bootable", "one", "True")
    cinder("snapshot-create", "--name", "first", "one")
    site.settled("rita")
    cinder("revert-to-snapshot", "first")
    site.settled("rita")
    cinder("snapshot-create", "--name", "second", "one")
    site.settled("rita")
    assert "is not the latest" in cinder("revert-to-snapshot", "first", fails=True)
    second = cell(cinder("snapshot-show", "second"), "id")
    cinder("snapshot-reset-state", "--state", "error", second, who="admin")
    cinder("snapshot-delete", "--force", second, who="admin")
    site.settled("rita")
    assert "dependent snapshots" in cinder("delete", "one", fails=True)
    cinder("delete", "--cascade", "one")
    site.settled("rita")
    assert site.call("GET", f"/v3/volumes/{volume}")[0] == 404
    assert cinder("snapshot-list").count("\n") <= 4
    made(site, "stuck")
    stuck = cell(cinder("show", "stuck"), "id")
    cinder("reset-state", "--state", "error", stuck, who="admin")
    cinder("force-delete", stuck, who="admin")
    site.settled("rita")
    assert site.call("GET", f"/v3/volumes/{stuck}")[0] == 404


def test_openstack_actions(site: LiveSite) -> None:
    volume = made(site, "two").id
    site.openstack("volume", "snapshot", "create", "--volume", "two", "snap", who="rita")
    site.settled("rita")
    site.run("openstack", "volume", "revert", "snap", who="rita", version="3.40")
    site.settled("rita")
    site.call("POST", "/v3/types", json={"volume_type": {"name": "third"}})
    site.run("openstack", "volume", "set", "--type", "third", "--bootable", "two", who="rita")
    site.run("openstack", "volume", "set", "--image-property", "a=b", "two", who="rita")
    shown = site.openstack("volume", "show", "two", who="rita")
    assert (shown["type"], shown["bootable"], shown["volume_image_metadata"]) == ("third", True, {"a": "b"})
    site.run("openstack", "volume", "unset", "--image-property", "a", "two", who="rita")
    site.run("openstack", "volume", "delete", "--cascade", "two", who="rita")
    site.settled("rita")
    assert site.call("GET", f"/v3/volumes/{volume}")[0] == 404


def test_the_page_on_adopting_does_what_it_says(site: LiveSite) -> None:
    volume = made(site, "here", who="admin")
    pool, folder = home(site, volume.id)
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    host, _, backend = pool.partition("#")[0].partition("@")
    here = {"BACKEND": str(folder), "HOST": host, "NAME": backend, "PATH": f"{BIN}:{os.environ['PATH']}",
            "OS_VOLUME_API_VERSION": "3.71"}  # fmt: skip

    def run(block: str) -> str:
        done = subprocess.run(["bash", "-euc", block], env={**site.env(), **here}, capture_output=True, text=True,
                              check=False, timeout=90)  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        site.settled()
        return done.stdout

    told = [run(block) for block in blocks]
    assert "disk.raw" in told[1]
    assert "adopted" in told[1]
    assert "1.5 GiB" in told[3]
    with pytest.raises(exceptions.NotFound):
        library(site, "admin").volumes.find(name="adopted")
    library(site, "admin").volumes.delete(volume)
    site.settled()
