"""Volumes, snapshots and attachments with `openstack`, `cinder` and python-cinderclient: two projects, three roles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cinderclient import client as cinder_client
from cinderclient import exceptions

from tests.clients.livesite import LiveSite, live_site

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    with live_site() as site:
        site.people()
        yield site


def library(site: LiveSite, who: str, version: str = "3.71") -> Any:
    return cinder_client.Client(version, session=site.session(who))


def test_openstack_from_create_to_delete(site: LiveSite) -> None:
    made = site.openstack("volume", "create", "--size", "1", "--property", "k=v", "first", who="rita")
    assert (made["name"], made["size"], made["status"]) == ("first", 1, "creating")
    site.settled("rita")
    assert site.run("openstack", "volume", "set", "--size", "2", "--property", "l=w", "first", who="rita") == ""
    site.settled("rita")
    shown = site.openstack("volume", "show", "first", who="rita")
    assert (shown["status"], shown["size"], shown["properties"]) == ("available", 2, {"k": "v", "l": "w"})
    snapshot = site.openstack("volume", "snapshot", "create", "--volume", "first", "snap", who="rita")
    assert snapshot["volume_id"] == made["id"]
    site.settled("rita")
    rows = site.openstack("volume", "snapshot", "list", "--long", who="rita")
    assert [(row["Name"], row["Status"], row["Size"]) for row in rows] == [("snap", "available", 2)]
    site.run("openstack", "volume", "create", "--snapshot", "snap", "clone", who="rita")
    site.settled("rita")
    listed = site.openstack("volume", "list", "--long", who="rita")
    assert {(row["Name"], row["Status"], row["Size"]) for row in listed} == {
        ("first", "available", 2), ("clone", "available", 2),
    }  # fmt: skip
    assert "dependent snapshots" in site.run("openstack", "volume", "delete", "first", who="rita", fails=True)
    site.run("openstack", "volume", "snapshot", "delete", "snap", who="rita")
    site.settled("rita")
    site.run("openstack", "volume", "delete", "first", "clone", who="rita")
    site.settled("rita")
    assert site.call("GET", "/v3/volumes", who="rita")[1]["volumes"] == []


def test_openstack_complaints_and_who_may(site: LiveSite) -> None:
    big = site.run("openstack", "volume", "create", "--size", "1001", "big", who="rita", fails=True)
    assert "exceeds allowed gigabytes quota" in big
    assert "403" in site.run("openstack", "volume", "create", "--size", "1", "x", who="rolf", fails=True)
    made = site.openstack("volume", "create", "--size", "1", "ours", who="rita")
    site.settled("rita")
    assert [row["ID"] for row in site.openstack("volume", "list", who="rolf")] == [made["id"]]
    assert "403" in site.run("openstack", "volume", "delete", made["id"], who="rolf", fails=True)
    assert site.openstack("volume", "list", who="bert") == []
    assert "No Volume found" in site.run("openstack", "volume", "show", made["id"], who="bert", fails=True)
    everywhere = site.openstack("volume", "list", "--all-projects")
    assert made["id"] in {row["ID"] for row in everywhere}
    site.run("openstack", "volume", "set", "--state", "error", made["id"])
    assert site.call("GET", f"/v3/volumes/{made['id']}")[1]["volume"]["status"] == "error"
    site.run("openstack", "volume", "delete", "--force", made["id"])
    site.settled("rita")
    assert site.call("GET", "/v3/volumes", who="rita")[1]["volumes"] == []


def cell(table: str, name: str) -> str:
    """The value beside `name` in a table of the cinder shell."""
    return next(line.split("|")[2].strip() for line in table.splitlines() if line.startswith(f"| {name} "))


def test_cinder_shell(site: LiveSite) -> None:
    def cinder(*words: str, who: str = "bert", **more: Any) -> str:
        return site.run("cinder", *words, who=who, **more)

    assert "creating" in cinder("create", "--name", "one", "--metadata", "a=1", "b=2", "--", "1")
    site.settled("bert")
    cinder("extend", "one", "2")
    site.settled("bert")
    cinder("metadata", "one", "set", "c=3")
    cinder("metadata", "one", "unset", "a", "b")
    shown = cinder("show", "one")
    assert "c : 3" in shown
    assert cell(shown, "size") == "2"
    cinder("snapshot-create", "--name", "snap", "one")
    site.settled("bert")
    assert "available" in cinder("snapshot-list")
    assert "snap" in cinder("snapshot-show", "snap")
    made = cinder("attachment-create", "one")
    attachment = cell(made, "id")
    assert "reserved" in cinder("attachment-show", attachment)
    cinder("attachment-complete", attachment)
    assert "in-use" in cinder("list")
    lie = cinder("reset-state", "--state", "available", "one", who="admin", fails=True)
    assert f"attachment {attachment}" in lie
    assert "Invalid volume" in cinder("delete", "one", fails=True)
    cinder("attachment-delete", attachment)
    cinder("snapshot-delete", "snap")
    site.settled("bert")
    listed = cinder("list", "--filters", "name=one", "--with-count")
    assert "available" in listed
    assert "Volume in total: 1" in listed
    cinder("delete", "one")
    site.settled("bert")
    assert "one" not in cinder("list")


def test_library_pages_filters_and_metadata(site: LiveSite) -> None:
    red = library(site, "rita")
    made = [red.volumes.create(1, name=f"v{number}", metadata={"n": str(number)}) for number in range(4)]
    site.settled("rita")
    first = red.volumes.list(limit=3, sort="name:asc")
    assert [volume.name for volume in first] == ["v0", "v1", "v2"]
    second = red.volumes.list(limit=3, sort="name:asc", marker=first[-1].id)
    assert [volume.name for volume in second] == ["v3"]
    assert [volume.name for volume in red.volumes.list(search_opts={"metadata": {"n": "2"}})] == ["v2"]
    assert [volume.name for volume in red.volumes.list(search_opts={"status": "error"})] == []
    volume = red.volumes.get(made[0].id)
    red.volumes.set_metadata(volume, {"a": "1", "b": "2"})
    red.volumes.delete_metadata(volume, ["a", "n"])
    assert red.volumes.get(volume.id).metadata == {"b": "2"}
    red.volumes.update(volume, name="renamed", description="d")
    red.volumes.set_bootable(volume, True)
    red.volumes.update_readonly_flag(volume, True)
    shown = red.volumes.get(volume.id)
    assert (shown.name, shown.bootable, shown.metadata["readonly"]) == ("renamed", "true", "True")
    clone = red.volumes.create(2, source_volid=made[1].id)
    site.settled("rita")
    assert red.volumes.get(clone.id).status == "available"
    for item in [*made, clone]:
        red.volumes.delete(item)
    site.settled("rita")
    assert red.volumes.list() == []


def test_library_attachments(site: LiveSite) -> None:
    red, blue, admin = library(site, "rita"), library(site, "bert"), library(site, "admin")
    volume = red.volumes.create(1)
    site.settled("rita")
    home = getattr(admin.volumes.get(volume.id), "os-vol-host-attr:host").split("@")[0]
    server = "11111111-2222-3333-4444-555555555555"
    made = red.attachments.create(volume.id, None, server, mode="rw")
    assert (made["status"], made["instance"]) == ("reserved", server)
    assert red.volumes.get(volume.id).status == "reserved"
    with pytest.raises(exceptions.BadRequest):
        red.attachments.create(volume.id, None)
    with pytest.raises(exceptions.NotFound):
        blue.attachments.show(made["id"])
    with pytest.raises(exceptions.ClientException, match="no transport reaches it") as far:
        red.attachments.update(made["id"], {"host": "elsewhere", "initiator": "iqn.2026-01.org.example:x"})
    assert far.value.code == 409
    updated = red.attachments.update(made["id"], {"host": home})
    assert updated.connection_info["driver_volume_type"] == "local"
    red.attachments.complete(made["id"])
    shown = red.volumes.get(volume.id)
    assert (shown.status, shown.attachments[0]["server_id"]) == ("in-use", server)
    with pytest.raises(exceptions.BadRequest):
        red.volumes.delete(volume)
    second = red.attachments.create(volume.id, None, server)
    assert len(red.attachments.list(search_opts={"volume_id": volume.id})) == 2
    red.attachments.delete(second["id"])
    red.volumes.extend(volume, 2)
    site.settled("rita")
    assert (red.volumes.get(volume.id).status, red.volumes.get(volume.id).size) == ("in-use", 2)
    red.attachments.delete(made["id"])
    assert red.volumes.get(volume.id).status == "available"
    red.volumes.delete(volume)
    site.settled("rita")


def test_library_at_old_versions(site: LiveSite) -> None:
    old = library(site, "rita", "3.0")
    volume = old.volumes.create(1, name="old")
    site.settled("rita")
    assert not hasattr(old.volumes.get(volume.id), "group_id")
    snapshot = old.volume_snapshots.create(volume.id, name="s")
    site.settled("rita")
    assert old.volume_snapshots.get(snapshot.id).status == "available"
    old.volumes.reserve(volume)
    assert old.volumes.get(volume.id).status == "attaching"
    old.volumes.unreserve(volume)
    old.volume_snapshots.delete(snapshot)
    site.settled("rita")
    old.volumes.delete(volume)
    site.settled("rita")
    with pytest.raises(exceptions.NotFound):
        old.volumes.get(volume.id)
