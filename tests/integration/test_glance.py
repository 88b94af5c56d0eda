"""Images of a real Glance, with a real Keystone and the real clients: volumes of them, images of volumes, kills."""

from __future__ import annotations

import hashlib
import os
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import Refused
from tests.support.cloud import PATIENCE_S, Cloud
from tests.support.cloud import cloud as standing

pytestmark = [pytest.mark.slow, pytest.mark.clients, pytest.mark.timeout(1800)]
MiB, GiB = 1 << 20, 1 << 30


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with standing(tmp_path_factory.mktemp("cloud")) as made:
        yield made


def content(size: int = 24 * MiB) -> bytes:
    data = bytearray(size)
    for at in range(0, size, 8 * MiB):
        data[at : at + 4 * MiB] = os.urandom(4 * MiB)
    return bytes(data)


def begins_with(path: Path, data: bytes) -> bool:
    with path.open("rb") as volume:
        return hashlib.sha256(volume.read(len(data))).digest() == hashlib.sha256(data).digest()


def test_there_and_back_by_the_clients(cloud: Cloud, tmp_path: Path) -> None:
    data = content()
    (tmp_path / "raw").write_bytes(data)
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", tmp_path / "raw", tmp_path / "q"], check=True
    )
    made = cloud.run("image", "create", "--file", str(tmp_path / "q"), "--disk-format", "qcow2", "--min-disk", "1",
                     "--property", "hw_disk_bus=scsi", "debian", "-f", "json")  # fmt: skip
    assert made["status"] == "active"
    volume = cloud.run("volume", "create", "--image", "debian", "--size", "1", "system", "-f", "json")
    found = cloud.site.settled(volume["id"])
    assert (found["status"], found["bootable"]) == ("available", "true")
    remembered = found["volume_image_metadata"]
    assert (remembered["image_id"], remembered["hw_disk_bus"]) == (made["id"], "scsi")
    assert begins_with(cloud.site.volume(volume["id"]), data)
    # Another project does not see it, and a volume that is too small is refused, before anything is made.
    cloud.run("volume", "create", "--image", made["id"], "--size", "1", "x", who="bea", project="two", fails=True)
    assert cloud.run("volume", "list", "-f", "json", who="bea", project="two") == []

    # Back to an image, in the store of the volume's type.
    cloud.run("volume", "type", "create", "cheap", "--property", "image_service:store_id=cheap", "-f", "json",
              who="boss")  # fmt: skip
    complaint = cloud.run("volume", "type", "set", "cheap", "--property", "image_service:store_id=nosuch", who="boss",
                          fails=True)  # fmt: skip
    assert "nosuch" in complaint
    assert "cheap, reliable" in complaint
    clone = cloud.run("volume", "create", "--image", "debian", "--type", "cheap", "--size", "1", "other", "-f", "json")
    assert cloud.site.settled(clone["id"])["status"] == "available"
    for source, store in ((volume["id"], "reliable"), (clone["id"], "cheap")):
        answer = cloud.run("image", "create", "--volume", source, f"back-{store}", "-f", "json")
        image = cloud.image(answer["image_id"])
        assert (image["status"], image["size"], image["hw_disk_bus"]) == ("active", GiB, "scsi"), cloud.site.logs()
        assert (image["stores"], image["min_disk"], image["owner"]) == (store, 1, cloud.site.api.project)
        assert "image_id" not in image
        with cloud.site.volume(source).open("rb") as kept:
            assert hashlib.file_digest(kept, "sha512").hexdigest() == image["os_hash_value"]
        assert cloud.site.settled(source)["status"] == "available"
    second = cloud.run("volume", "create", "--image", "back-cheap", "--size", "2", "again", "-f", "json")
    assert cloud.site.settled(second["id"])["size"] == 2
    assert begins_with(cloud.site.volume(second["id"]), data)
    cloud.site.clean()


def test_reimage_and_what_is_refused(cloud: Cloud) -> None:
    first, second = content(8 * MiB), content(4 * MiB)
    one, two = (cloud.images.image(data, token=cloud.token(), name="n") for data in (first, second))
    volume = cloud.site.api.create_volume("v", 1, imageRef=one)
    assert cloud.site.settled(volume)["status"] == "available"
    cloud.site.api.post(f"/v3/volumes/{volume}/action", {"os-reimage": {"image_id": two}})
    assert cloud.site.settled(volume)["volume_image_metadata"]["image_id"] == two
    assert begins_with(cloud.site.volume(volume), second + bytes(4 * MiB))
    # A file that names another: refused by rule on the host.
    evil = b"QFI\xfb" + (3).to_bytes(4, "big") + (512).to_bytes(8, "big") + (11).to_bytes(4, "big") + bytes(4096)
    try:
        bad = cloud.images.image(evil, token=cloud.token(), disk_format="raw")
    except urllib.error.HTTPError:
        bad = None  # the service looks too, in its newer releases
    if bad is not None:
        assert cloud.site.settled(cloud.site.api.create_volume("bad", 1, imageRef=bad))["status"] == "error"
    queued = cloud.images.call("POST", "/v2/images", {"name": "q", "disk_format": "raw", "container_format": "bare"},
                               token=cloud.token())["id"]  # fmt: skip
    for reference in (queued, "00000000-0000-4000-8000-00000000dead"):
        with pytest.raises(Refused):
            cloud.site.api.create_volume("no", 1, imageRef=reference)


def test_killed_on_the_way_there_and_back(cloud: Cloud) -> None:
    site, data = cloud.site, content(48 * MiB)
    image = cloud.images.image(data, token=cloud.token())
    host = site.volume_host
    for fault in ("agent.job.started", "agent.job.effect-done"):
        site.agents[host].arm(fault)
        volume = site.api.create_volume("v", 1, imageRef=image)
        site.agents[host].died(60)
        site.restart(host)
        assert site.settled(volume)["status"] == "available"
        assert begins_with(site.volume(volume), data)
    for name, fault in (("coordinator", "coordinator.job.before-post"), (host, "agent.job.effect-done")):
        site.parts[name].arm(fault)
        answer = site.api.post(f"/v3/volumes/{volume}/action", {
            "os-volume_upload_image": {"image_name": "back", "disk_format": "raw", "container_format": "bare"}
        })["os-volume_upload_image"]  # fmt: skip
        site.parts[name].died(PATIENCE_S)
        site.restart(name)
        assert cloud.image(answer["image_id"])["status"] == "active", site.logs()
        assert site.settled(volume)["status"] == "available"
    site.clean()


def test_an_upload_that_the_service_refuses_leaves_nothing(cloud: Cloud) -> None:
    site = cloud.site
    volume = site.api.create_volume("v", 1)
    site.settled(volume)
    store = cloud.images.folder / "reliable"
    store.rename(store.with_name("gone"))
    try:
        answer = site.api.post(f"/v3/volumes/{volume}/action", {
            "os-volume_upload_image": {"image_name": "back", "protected": True, "disk_format": "raw"}
        })["os-volume_upload_image"]  # fmt: skip
        assert site.settled(volume)["status"] == "available"
    finally:
        store.with_name("gone").rename(store)
    with pytest.raises(urllib.error.HTTPError) as gone:
        cloud.images.call("GET", f"/v2/images/{answer['image_id']}", token=cloud.token())
    assert gone.value.code == 404
    told = site.api.call("GET", "/v3/messages")["messages"]
    assert any(volume == each["resource_uuid"] for each in told)
    site.clean()
