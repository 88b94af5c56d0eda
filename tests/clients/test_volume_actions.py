"""Actions of volumes and snapshots with the cinder shell, the openstack client and the library, on a real site."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
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


def sealed_before(folder: Path, name: str, key: str) -> None:
    """A volume of a Cinder with one fixed key, brought along: LUKS, opened by the key in hexadecimal."""
    path = folder / "unmanaged" / name
    with path.open("wb") as made_here:
        made_here.truncate(64 << 20)
    quick = ("--pbkdf-force-iterations", "1000", "--batch-mode", "--type", "luks1", "--key-file", "-")
    subprocess.run(["/usr/sbin/cryptsetup", "luksFormat", *quick, path], input=key.encode(), check=True, timeout=90)
    owner = folder.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def test_the_page_on_adopting_does_what_it_says(site: LiveSite, tmp_path: Path) -> None:
    volume = made(site, "here", who="admin")
    pool, folder = home(site, volume.id)
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    host, _, backend = pool.partition("#")[0].partition("@")
    here = {"BACKEND": str(folder), "HOST": host, "NAME": backend, "PATH": f"{BIN}:{os.environ['PATH']}",
            "OS_VOLUME_API_VERSION": "3.71"}  # fmt: skip
    kind = site.call("POST", "/v3/types", json={"volume_type": {"name": "sealed"}})[1]["volume_type"]["id"]
    site.call("POST", f"/v3/types/{kind}/encryption", json={"encryption": {"provider": "luks"}})
    key = secrets.token_hex(32)
    (tmp_path / "fixed_key").write_text(key)
    for name in ("volume-ONE", "volume-TWO"):
        sealed_before(folder, name, key)

    def run(block: str) -> str:
        done = subprocess.run(["bash", "-euc", block], env={**site.env(), **here}, capture_output=True, text=True,
                              check=False, timeout=180, cwd=tmp_path)  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        site.settled()
        return done.stdout

    told = [run(block) for block in blocks]
    assert "disk.raw" in told[1]
    assert "adopted" in told[1]
    assert "1.5 GiB" in told[5]
    with pytest.raises(exceptions.NotFound):
        library(site, "admin").volumes.find(name="adopted")
    for name in ("one", "two"):
        found = library(site, "admin").volumes.find(name=name)
        assert (found.status, found.encrypted, found.size) == ("available", True, 1)
        library(site, "admin").volumes.delete(found)
    library(site, "admin").volumes.delete(volume)
    site.settled()
    site.call("DELETE", f"/v3/types/{kind}")


def image_of(site: LiveSite, name: str, who: str = "rita") -> Any:
    found = site.call("GET", f"/image/v2/images?name={name}", who=who)[1]["images"]
    return found[0] if found else None


def test_a_volume_becomes_an_image_and_an_image_a_volume(site: LiveSite) -> None:
    volume = made(site, "source")
    _, folder = home(site, volume.id)
    path = folder / "volumes" / volume.id
    with path.open("r+b") as out:
        out.write(b"content of the source")
        out.seek(100 << 20)
        out.write(os.urandom(1 << 20))
    told = site.run("cinder", "upload-to-image", "source", "first", who="rita")
    assert "uploading" in told
    site.settled("rita")
    image = image_of(site, "first")
    assert (image["status"], image["size"], image["min_disk"]) == ("active", 1 << 30, 1), image
    assert image["os_hash_value"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert library(site, "rita").volumes.get(volume.id).status == "available"
    copy = made(site, "copy", imageRef=image["id"])
    assert copy.bootable == "true"
    assert next(site.folder.rglob(f"volumes/{copy.id}")).read_bytes() == path.read_bytes()
    site.run("cinder", "upload-to-image", "--disk-format", "qcow2", "source", "small", who="rita")
    site.settled("rita")
    small = image_of(site, "small")
    assert (small["status"], small["disk_format"], small["virtual_size"]) == ("active", "qcow2", 1 << 30), small
    assert small["size"] < 8 << 20
    again = made(site, "again", imageRef=small["id"])
    assert next(site.folder.rglob(f"volumes/{again.id}")).read_bytes() == path.read_bytes()
    refused = site.run("cinder", "upload-to-image", "--disk-format", "vdi", "source", "third", who="rita", fails=True)
    assert "raw or qcow2 images" in refused
    public = site.run("cinder", "upload-to-image", "--visibility", "public", "source", "x", who="rita", fails=True,
                      version="3.1")  # fmt: skip
    assert "403" in public
    assert "403" in site.run("cinder", "upload-to-image", "source", "third", who="rolf", fails=True)


@pytest.mark.slow
def test_reimage_gives_a_new_content_at_once(site: LiveSite) -> None:
    red = library(site, "rita")
    made(site, "small")
    site.run("openstack", "image", "create", "--volume", "small", "again", who="rita", version="3.1")
    site.settled("rita")
    source = image_of(site, "again")
    volume = made(site, "anew", metadata={"a": "b"})
    site.run("cinder", "reimage", volume.id, source["id"], who="rita", version="3.68")
    site.settled("rita")
    shown = red.volumes.get(volume.id)
    assert (shown.status, shown.bootable, shown.metadata) == ("available", "true", {"a": "b"})
    assert shown.volume_image_metadata["image_name"] == "again"
    kept = next(site.folder.rglob(f"volumes/{volume.id}")).read_bytes()
    assert hashlib.sha256(kept).hexdigest() == source["os_hash_value"]
    small = site.call("POST", "/image/v2/images", who="rita", json={"name": "big", "disk_format": "raw",
                      "container_format": "bare", "min_disk": 9})[1]  # fmt: skip
    path = f"/v3/volumes/{volume.id}/action"
    assert site.call("POST", path, who="rita", json={"os-reimage": {"image_id": small["id"]}})[0] == 400
    attachment = red.attachments.create(volume.id, None, SERVER)
    body = {"os-reimage": {"image_id": source["id"]}}
    assert site.call("POST", path, who="rita", json=body)[0] == 400
    body["os-reimage"]["reimage_reserved"] = True
    assert site.call("POST", path, who="rita", json=body)[0] == 202
    site.settled("rita")
    assert red.volumes.get(volume.id).status == "reserved"
    red.attachments.delete(attachment["id"])
    assert red.volumes.get(volume.id).status == "available"


@pytest.mark.slow
def test_an_encrypted_volume_stays_encrypted_as_an_image(site: LiveSite) -> None:
    kind = site.call("POST", "/v3/types", json={"volume_type": {"name": "secret"}})[1]["volume_type"]["id"]
    site.call("POST", f"/v3/types/{kind}/encryption", json={"encryption": {"provider": "luks"}})
    volume = made(site, "secret", volume_type="secret")
    site.run("cinder", "upload-to-image", "secret", "sealed", who="rita")
    site.settled("rita")
    image = image_of(site, "sealed")
    formats = ("disk_format", "container_format", "os_encrypt_format", "os_decrypt_size")
    assert [image["status"], *(image[name] for name in formats)] == ["active", "raw", "luks", "LUKSv1", str(1 << 30)]
    key, policy = image["os_encrypt_key_id"], image["os_encrypt_key_deletion_policy"]
    assert (image["cinder_encryption_key_id"], policy) == (key, "on_image_deletion")
    assert key != library(site, "rita").volumes.get(volume.id).encryption_key_id
    kept = next(site.folder.rglob(f"volumes/{volume.id}"))
    assert image["os_hash_value"] == hashlib.sha256(kept.read_bytes()).hexdigest()
    copy = made(site, "opened", volume_type="secret", imageRef=image["id"])
    assert (copy.status, copy.encrypted) == ("available", True)
    plain = site.run("cinder", "create", "--image-id", image["id"], "1", who="rita", fails=True)
    assert "is encrypted" in plain
    for one in (volume, copy):
        library(site, "rita").volumes.delete(one)
    assert site.call("DELETE", f"/image/v2/images/{image['id']}", who="rita")[0] == 204
    site.settled("rita")
    assert site.call("GET", f"/brickyard/v1/keys/{key}", who="rita")[0] == 404
