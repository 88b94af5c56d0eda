"""What images may ask of volumes, and where that ends: sizes, secrets, packing, content, properties, formats."""

from __future__ import annotations

import base64
import gzip
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from tests.support.api import Refused
from tests.support.images import MIB, content_of, decrypted, qemu_img
from tests.support.luks import opens
from tests.support.site import Site, running

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (shutil.which("qemu-img") and shutil.which("cryptsetup")), reason="needs qemu-img, cryptsetup"
    ),
]
GIB = 1 << 30
PASSPHRASE = b"correct horse battery staple"
TORN = gzip.compress(os.urandom(100_000))[:-2000]
SERVER = "aaaaaaaa-0000-4000-8000-00000000000a"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running(1) as made:
        made.api.encrypted_type()
        yield made


def path(site: Site, volume_id: str) -> Path:
    return site.layout.volumes(site.volume_host) / "volumes" / volume_id


def key(type: str, value: bytes) -> dict[str, str]:
    return {"type": type, "payload_b64": base64.b64encode(value).decode()}


def image(site: Site, data: bytes | None, **values: Any) -> str:
    body = {"name": "i", "disk_format": "raw", "container_format": "bare", **values}
    image_id = str(site.api.post("/image/v2/images", body)["id"])
    if data is not None:
        site.api.call("PUT", f"/image/v2/images/{image_id}/file", data)
    return image_id


def refused(site: Site, url: str, body: Any, status: int = 400) -> str:
    """Nothing has changed by it."""
    before = (site.api.usage(), len(site.api.volumes()))
    with pytest.raises(Refused) as answer:
        site.api.post(url, body)
    assert answer.value.status == status, answer.value.text
    assert (site.api.usage(), len(site.api.volumes())) == before
    return answer.value.text


def failed(site: Site, **fields: Any) -> str:
    """What a volume that came to nothing says to its user; nothing of it is left on the host."""
    volume_id = site.api.create_volume("v", **fields)
    site.api.settle(600)
    assert site.api.volume(volume_id)["status"] == "error"
    assert not path(site, volume_id).exists()
    told = site.api.get("/v3/messages")["messages"]
    site.api.delete(f"/v3/volumes/{volume_id}")
    site.api.settle(600)
    site.clean()
    return next(str(one["user_message"]) for one in told if one["resource_uuid"] == volume_id)


def head(site: Site, volume_id: str, size: int) -> bytes:
    with path(site, volume_id).open("rb") as file:
        return file.read(size)


def raw_luks(site: Site, content: bytes, passphrase: bytes) -> bytes:
    """A raw LUKS image of `content`, by the tools of the trade."""
    clear, file, secret = (site.folder / name for name in ("clear", "raw-luks", "its-key"))
    clear.write_bytes(content)
    secret.write_bytes(passphrase)
    file.touch()
    os.truncate(file, len(content) + 2 * MIB)
    argv = ["cryptsetup", "luksFormat", "--batch-mode", "--disable-locks", "--type", "luks1", "--key-file", "-"]
    weak = ["--pbkdf-force-iterations", "1000", file]
    subprocess.run([*argv, *weak], input=passphrase, check=True, timeout=600)
    target, source = f"driver=luks,file.filename={file},key-secret=s", f"driver=raw,file.filename={clear}"
    qemu_img("convert", "-n", "--object", f"secret,id=s,file={secret}", "--image-opts", source,
             "--target-image-opts", target)  # fmt: skip
    data = file.read_bytes()
    for one in (clear, file, secret):
        one.unlink()
    return data


def test_an_encrypted_image_wants_an_encrypted_type_and_its_room_and_leaves_its_secret(site: Site) -> None:
    content = content_of()
    sealed = raw_luks(site, content, PASSPHRASE)
    fits = site.api.image("s", "luks", sealed, secret=key("passphrase", PASSPHRASE), decrypt_size=len(content))
    large = site.api.image("l", "luks", sealed, secret=key("passphrase", PASSPHRASE), decrypt_size=GIB + 512)
    wish = {"size": 1, "name": "v", "imageRef": fits}
    for kind in ({}, {"volume_type": "__DEFAULT__"}):
        assert "encrypted" in refused(site, "/v3/volumes", {"volume": {**wish, **kind}})
    refused(site, "/v3/volumes", {"volume": {**wish, "imageRef": large, "volume_type": "secret"}})
    volume_id = site.api.made("v", imageRef=fits, volume_type="secret")
    for gone in (fits, large):
        site.api.delete(f"/image/v2/images/{gone}")
    site.api.settle(600)
    assert opens(path(site, volume_id), PASSPHRASE)
    assert decrypted(site.folder, path(site, volume_id), PASSPHRASE, len(content)) == content
    assert site.truths.opening(site.api.volume(volume_id)["encryption_key_id"]) == PASSPHRASE
    site.clean()


def test_a_raw_luks_image_of_a_symmetric_secret_packed_or_not(site: Site) -> None:
    content, value = content_of(), os.urandom(32)
    data = raw_luks(site, content, value.hex().encode())
    for packed in (False, True):
        key_id = site.api.post("/brickyard/v1/keys", {"key": {**key("symmetric", value), "name": "registered"}})
        properties = {"os_encrypt_key_id": key_id["key"]["id"], "os_encrypt_format": "LUKSv1",
                      "os_decrypt_size": str(len(content))}  # fmt: skip
        container = "compressed" if packed else "luks"
        sealed = image(site, gzip.compress(data, 1) if packed else data, container_format=container, **properties)
        volume_id = site.api.made("v", imageRef=sealed, volume_type="secret")
        own = site.truths.opening(site.api.volume(volume_id)["encryption_key_id"])
        assert own == value.hex().encode()
        assert decrypted(site.folder, path(site, volume_id), own, len(content)) == content
        site.api.delete(f"/image/v2/images/{sealed}")
        site.api.settle(600)
        site.api.delete(f"/brickyard/v1/keys/{key_id['key']['id']}")
    site.clean()


def test_what_says_that_it_is_packed_and_is_not_is_refused_with_words(site: Site) -> None:
    for data in (b"PK\3\4 no gzip at all " * 1000, os.urandom(100_000)):
        with pytest.raises(Refused, match="what gzip makes") as answer:
            image(site, data, container_format="compressed")
        assert answer.value.status == 400
    # Where only its end tells.
    assert "ends before" in failed(site, imageRef=image(site, TORN, container_format="compressed"))


def test_a_packed_image_that_is_larger_than_its_volume_ends_at_the_limit(site: Site) -> None:
    bomb = 17 * gzip.compress(bytes(64 * MIB), 1)
    assert failed(site, imageRef=image(site, bomb, container_format="compressed"))


def test_another_content_leaves_nothing_of_the_one_before(site: Site, tmp_path: Path) -> None:
    """Zeros of the image are zeros of the volume, also where the file does not hold them."""
    size, content = 16 * MIB, bytearray(16 * MIB)
    content[4 * MIB : 5 * MIB] = os.urandom(MIB)
    (tmp_path / "raw").write_bytes(content)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "raw", tmp_path / "q")
    sparse = image(site, (tmp_path / "q").read_bytes(), disk_format="qcow2")
    for kind in ("__DEFAULT__", "secret"):
        before = image(site, os.urandom(size), old="1")
        volume_id = site.api.made("v", imageRef=before, volume_type=kind)
        shown = site.api.volume(volume_id)
        site.api.post(f"/v3/volumes/{volume_id}/action", {"os-reimage": {"image_id": sparse}})
        site.api.settle(600)
        now = site.api.volume(volume_id)
        assert [now[name] for name in ("status", "size", "volume_type", "bootable")] == ["available", 1, kind, "true"]
        assert (now["volume_image_metadata"]["image_id"], "old" in now["volume_image_metadata"]) == (sparse, False)
        assert shown["volume_image_metadata"]["old"] == "1"
        if kind == "secret":
            own = site.truths.opening(now["encryption_key_id"])
            assert decrypted(site.folder, path(site, volume_id), own, size) == content
        else:
            assert head(site, volume_id, size) == content
    site.clean()


def test_where_another_content_is_refused_nothing_changes_and_after_an_error_it_works(
    site: Site, tmp_path: Path
) -> None:
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "wide", "2G")
    good, bad = image(site, b"good" * 4096), image(site, TORN, container_format="compressed")
    queued, big = image(site, None), image(site, b"x", min_disk=2)
    wide = image(site, (tmp_path / "wide").read_bytes(), disk_format="qcow2")
    volume_id = site.api.made("v", imageRef=good)
    url = f"/v3/volumes/{volume_id}/action"
    for image_id, status in ((queued, 400), (big, 400), (wide, 400), (new_id(), 404)):
        refused(site, url, {"os-reimage": {"image_id": image_id}}, status)
        assert site.api.volume(volume_id)["status"] == "available"
    site.api.versions = "volume 3.67"
    try:
        refused(site, url, {"os-reimage": {"image_id": good}}, 404)
    finally:
        site.api.versions = "volume 3.71"
    wish = {"attachment": {"volume_uuid": volume_id, "instance_uuid": SERVER}}
    reservation = site.api.post("/v3/attachments", wish)["attachment"]
    refused(site, url, {"os-reimage": {"image_id": good}})
    site.api.delete(f"/v3/attachments/{reservation['id']}")
    site.api.post(url, {"os-reimage": {"image_id": bad}})
    site.api.settle(600)
    assert site.api.volume(volume_id)["status"] == "available", "with the content that it had"
    assert any(one["resource_uuid"] == volume_id for one in site.api.get("/v3/messages")["messages"])
    assert site.api.volume(volume_id)["volume_image_metadata"]["image_id"] == good
    site.api.post(url, {"os-reimage": {"image_id": good}})
    site.api.settle(600)
    assert site.api.volume(volume_id)["volume_image_metadata"]["image_id"] == good
    assert head(site, volume_id, 16384) == b"good" * 4096
    site.clean()


def test_properties_are_set_and_removed_within_their_limits(site: Site) -> None:
    volume_id = site.api.made("v", imageRef=image(site, b"x" * 512, hw_disk_bus="scsi"))
    url = f"/v3/volumes/{volume_id}/action"

    def put(**metadata: str) -> Any:
        return site.api.post(url, {"os-set_image_metadata": {"metadata": metadata}})["metadata"]

    assert put(hw_disk_bus="virtio", colour="red")["hw_disk_bus"] == "virtio"
    site.api.post(url, {"os-unset_image_metadata": {"key": "colour"}})
    shown = site.api.post(url, {"os-show_image_metadata": None})["metadata"]
    assert (shown["hw_disk_bus"], "colour" in shown) == ("virtio", False)
    refused(site, url, {"os-unset_image_metadata": {"key": "colour"}}, 404)
    for metadata in ({"": "x"}, {"k" * 256: "x"}, {"k": "v" * 256}):
        with pytest.raises(Refused) as answer:
            put(**metadata)
        assert answer.value.status in (400, 413)
    for name in ("signature_verified", "cinder_encryption_key_id", "os_encrypt_key_id", "os_glance_import_task"):
        with pytest.raises(Refused) as answer:
            put(**{name: "x"})
        assert answer.value.status in (400, 403), name
    refused(site, f"/v3/volumes/{new_id()}/action", {"os-show_image_metadata": None}, 404)
    plain = site.api.made("plain")
    site.api.post(f"/v3/volumes/{plain}/action", {"os-set_image_metadata": {"metadata": {"a": "b"}}})
    assert site.api.volume(plain)["bootable"] == "false"


def test_a_header_that_a_guest_wrote_is_data(site: Site) -> None:
    """A raw volume stays one, whatever its beginning says."""
    volume_id = site.api.made("v")
    name = b"/etc/passwd"
    forged = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 512, len(name), 16, 10 * GIB).ljust(512, b"\0") + name
    with path(site, volume_id).open("r+b") as file:
        file.write(forged)
    # Such bytes never become an image, of which a volume could come.
    body = {"image_name": "back", "disk_format": "raw", "container_format": "bare"}
    answer = site.api.post(f"/v3/volumes/{volume_id}/action", {"os-volume_upload_image": body})
    site.api.settle(600)
    image_id = answer["os-volume_upload_image"]["image_id"]
    assert site.api.get(f"/image/v2/images/{image_id}")["status"] == "killed"
    told = site.api.get("/v3/messages")["messages"]
    assert any(one["resource_uuid"] == volume_id and "qcow" in one["user_message"] for one in told)
    assert site.api.volume(volume_id)["status"] == "available"
    site.api.post(f"/v3/volumes/{volume_id}/action", {"os-extend": {"new_size": 2}})
    site.api.settle(600)
    assert path(site, volume_id).stat().st_size == 2 * GIB
    copy = site.api.made("copy", 2, source_volid=volume_id)
    for one in (volume_id, copy):
        assert head(site, one, MIB) == forged.ljust(MIB, b"\0")
    site.clean()
