"""Encrypted volumes in Ceph on a site of real processes, opened by librbd as a server's QEMU opens them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import ceph
from tests.support.ceph_site import Consumer, consuming
from tests.support.images import MIB, content_of, encrypted_qcow2

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800), ceph.NEEDED]
GIB, HEADER = 1 << 30, 2 * MIB
CONTENT, OTHER = content_of(), content_of()
PASSPHRASE = b"of who made the image"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ceph.Cluster]:
    with ceph.running(6 << 30) as running:
        yield running


@pytest.fixture(scope="module")
def consumer(cluster: ceph.Cluster) -> Iterator[Consumer]:
    with consuming(cluster) as made:
        made.site.api.encrypted_type()
        yield made


@pytest.fixture(autouse=True)
def _nothing_left(consumer: Consumer) -> Iterator[None]:
    yield
    for volume in consumer.site.api.volumes():
        consumer.site.api.delete(f"/v3/volumes/{volume['id']}?cascade=true")
    for image in consumer.site.api.get("/image/v2/images")["images"]:
        consumer.site.api.delete(f"/image/v2/images/{image['id']}")
    consumer.site.api.settle(300)
    consumer.site.clean()
    assert consumer.site.api.get("/brickyard/v1/keys")["keys"] == []
    consumer.emptied()


def act(consumer: Consumer, volume_id: str, **action: Any) -> dict[str, Any]:
    """Do it to its end; the volume afterwards."""
    body = {name.replace("__", "-"): value for name, value in action.items()}
    consumer.site.api.post(f"/v3/volumes/{volume_id}/action", body)
    consumer.site.api.settle(600)
    volume = consumer.site.api.volume(volume_id)
    assert volume["status"] == "available", (volume, consumer.site.api.operations(volume_id))
    return volume


def retype(consumer: Consumer, volume_id: str, name: str) -> dict[str, Any]:
    return act(consumer, volume_id, os__retype={"new_type": name, "migration_policy": "on-demand"})


def plain_image(consumer: Consumer, content: bytes = CONTENT) -> str:
    return consumer.site.api.image("plain", "raw", content)


def test_a_new_volume_is_encrypted_before_anybody_writes(consumer: Consumer) -> None:
    volume = consumer.site.api.made("new", volume_type="secret")
    assert consumer.pool.raw(f"byv-{volume}", 6) == b"LUKS\xba\xbe"
    assert consumer.usable(volume) == GIB
    consumer.write(volume, CONTENT)
    assert consumer.read(volume, len(CONTENT)) == CONTENT
    assert CONTENT[: 1 << 16] not in consumer.pool.raw(f"byv-{volume}")
    assert not consumer.pool.opens(volume, b"0" * 64)


def test_a_volume_of_a_plain_and_of_an_encrypted_image(consumer: Consumer) -> None:
    secret = {"type": "passphrase", "payload_b64": base64.b64encode(PASSPHRASE).decode()}
    sealed = encrypted_qcow2(consumer.site.folder, CONTENT, PASSPHRASE)
    api = consumer.site.api
    images = [plain_image(consumer), api.image("sealed", "qcow2", sealed, secret=secret, decrypt_size=len(CONTENT))]
    for image in images:
        volume = api.made("filled", volume_type="secret", imageRef=image)
        assert consumer.read(volume, len(CONTENT) + MIB) == CONTENT + bytes(MIB)
        assert consumer.usable(volume) == GIB


def test_extended_it_has_all_the_bytes_that_were_asked_for(consumer: Consumer) -> None:
    volume = consumer.site.api.made("grows", volume_type="secret", imageRef=plain_image(consumer))
    act(consumer, volume, os__extend={"new_size": 3})
    assert consumer.usable(volume) == 3 * GIB
    told = consumer.pool.about(f"byv-{volume}")
    assert told["size"] == 3 * GIB + HEADER
    assert consumer.read(volume, len(CONTENT)) == CONTENT


def test_each_clone_has_a_secret_of_its_own(consumer: Consumer) -> None:
    api = consumer.site.api
    volume = api.made("first", volume_type="secret", imageRef=plain_image(consumer))
    snapshot = api.post("/v3/snapshots", {"snapshot": {"volume_id": volume, "name": "s"}})["snapshot"]["id"]
    api.settle(600)
    consumer.write(volume, OTHER)
    of_snapshot, of_volume = api.made("one", size=2, snapshot_id=snapshot), api.made("two", source_volid=volume)
    clones = {of_snapshot: CONTENT, of_volume: OTHER}
    former = consumer.key(volume)
    assert former is not None
    for clone, content in clones.items():
        assert consumer.read(clone, len(content)) == content
        assert not consumer.pool.opens(clone, former)
    assert consumer.usable(of_snapshot) == 2 * GIB
    act(consumer, volume, revert={"snapshot_id": snapshot})
    assert consumer.read(volume, len(CONTENT)) == CONTENT
    api.delete(f"/v3/volumes/{volume}?cascade=true")
    api.settle(600)
    for clone, content in clones.items():
        assert consumer.read(clone, len(content)) == content


def test_another_key(consumer: Consumer) -> None:
    volume = consumer.site.api.made("key", volume_type="secret", imageRef=plain_image(consumer))
    former = consumer.key(volume)
    for body in ({}, {"master_key": True}):
        consumer.site.api.post(f"/brickyard/v1/volumes/{volume}/rekey", body)
        consumer.site.api.settle(300)
        assert former is not None
        assert not consumer.pool.opens(volume, former)
        assert consumer.read(volume, len(CONTENT)) == CONTENT
        former = consumer.key(volume)


def test_from_plain_to_encrypted_and_back(consumer: Consumer) -> None:
    api = consumer.site.api
    volume = api.made("changes", imageRef=plain_image(consumer))
    kept = consumer.pool.about(f"byv-{volume}")["id"]
    api.post("/v3/types", {"volume_type": {"name": "other"}})
    act(consumer, volume, os__retype={"new_type": "other"})
    now = consumer.pool.about(f"byv-{volume}")["id"]
    assert now == kept  # the data stay
    assert retype(consumer, volume, "secret")["encrypted"]
    assert consumer.usable(volume) == GIB
    assert consumer.read(volume, len(CONTENT)) == CONTENT
    assert CONTENT[: 1 << 16] not in consumer.pool.raw(f"byv-{volume}")
    assert not retype(consumer, volume, "other")["encrypted"]
    assert consumer.usable(volume) == GIB
    assert consumer.read(volume, len(CONTENT)) == CONTENT
    assert api.get("/brickyard/v1/keys")["keys"] == []


@pytest.mark.parametrize("kind", ["__DEFAULT__", "secret"])
def test_an_image_of_a_volume_and_a_volume_of_that(consumer: Consumer, kind: str) -> None:
    api = consumer.site.api
    volume = api.made("source", volume_type=kind, imageRef=plain_image(consumer))
    act(consumer, volume, os__volume_upload_image={"image_name": "sent"})
    (image,) = [one for one in api.get("/image/v2/images")["images"] if one["name"] == "sent"]
    assert (image["status"], image["container_format"]) == ("active", "luks" if kind == "secret" else "bare"), image
    whole = consumer.pool.raw(f"byv-{volume}", 4 * GIB)
    assert image["size"] == len(whole) == GIB + (HEADER if kind == "secret" else 0)
    assert image["os_hash_value"] == hashlib.new(image["os_hash_algo"], whole).hexdigest()
    if kind == "secret":
        assert image["os_encrypt_format"] == "LUKSv1"
        assert image["os_encrypt_key_id"] != api.volume(volume)["encryption_key_id"]
        assert int(image["os_decrypt_size"]) == GIB
    copy = api.made("copy", volume_type=kind, imageRef=image["id"])
    assert consumer.read(copy, len(CONTENT)) == CONTENT
    if kind != "secret":
        act(consumer, volume, os__volume_upload_image={"image_name": "packed", "disk_format": "qcow2"})
        (image,) = [one for one in api.get("/image/v2/images")["images"] if one["name"] == "packed"]
        assert image["size"] < 16 * MIB
        assert consumer.read(api.made("again", volume_type="secret", imageRef=image["id"]), len(CONTENT)) == CONTENT


@pytest.mark.parametrize("kind", ["__DEFAULT__", "secret"])
def test_another_content(consumer: Consumer, kind: str) -> None:
    volume = consumer.site.api.made("anew", volume_type=kind, imageRef=plain_image(consumer))
    consumer.write(volume, CONTENT + CONTENT)
    act(consumer, volume, os__reimage={"image_id": plain_image(consumer, OTHER)})
    assert consumer.read(volume, 2 * len(OTHER)) == OTHER + bytes(len(OTHER))


def test_a_server_is_told_that_it_is_encrypted_and_by_which_secret(consumer: Consumer) -> None:
    api = consumer.site.api
    volume = api.made("offered", volume_type="secret")
    instance = "11111111-2222-3333-4444-555555555555"
    wanted = {"volume_uuid": volume, "instance_uuid": instance, "connector": {"host": "compute"}}
    attachment = api.post("/v3/attachments", {"attachment": wanted})["attachment"]
    info = attachment["connection_info"]
    assert (info["driver_volume_type"], info["encrypted"]) == ("rbd", True)
    told = api.get(f"/v3/volumes/{volume}/encryption")
    assert (told["provider"], told["encryption_key_id"]) == ("luks", api.volume(volume)["encryption_key_id"])
    api.delete(f"/v3/attachments/{attachment['id']}")


def test_what_no_server_could_open_is_not_made(consumer: Consumer) -> None:
    """QEMU knows the first version of LUKS alone."""
    api = consumer.site.api
    api.encrypted_type("second", "luks2")
    refused = api.create_volume("refused", volume_type="second")
    of_image = api.create_volume("refused-too", volume_type="second", imageRef=plain_image(consumer))
    plain = api.made("plain", imageRef=plain_image(consumer))
    api.post(f"/v3/volumes/{plain}/action", {"os-retype": {"new_type": "second", "migration_policy": "on-demand"}})
    api.settle(600)
    for volume in (refused, of_image, plain):
        (operation,) = [one for one in api.operations(volume) if one["state"] == "failed"]
        # A new volume was looked for elsewhere, where there is none; the error says what kept it from this place.
        code = "backend.luks1-alone" if volume == plain else "scheduler.no-pool"
        assert (operation["error"]["code"], "LUKS" in operation["error"]["message"]) == (code, True), operation["error"]
    kept = api.volume(plain)
    assert (kept["status"], kept["volume_type"], kept["encrypted"]) == ("available", "__DEFAULT__", False)
    assert consumer.read(plain, len(CONTENT)) == CONTENT
