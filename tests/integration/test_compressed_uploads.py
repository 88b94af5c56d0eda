"""Volumes uploaded as images that are packed by gzip, where the site allows it, and volumes made of those."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Refused
from tests.support.site import Site, running

pytestmark = pytest.mark.timeout(900)
MiB, GiB = 1 << 20, 1 << 30
DATA = os.urandom(3 * MiB) + b"packs well " * 200_000


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running(2, ("images.compressed_uploads=true",)) as made:
        yield made


def path(site: Site, volume_id: str) -> Path:
    return site.layout.volumes(site.volume_host) / "volumes" / volume_id


def written(site: Site, **more: Any) -> str:
    volume_id = site.api.made("v", **more)
    with path(site, volume_id).open("r+b") as file:
        file.seek(500 * MiB)
        file.write(DATA)
    return volume_id


def upload(site: Site, volume_id: str, **more: Any) -> str:
    body = {"image_name": "i", "disk_format": "raw", "container_format": "compressed", **more}
    answer = site.api.post(f"/v3/volumes/{volume_id}/action", {"os-volume_upload_image": body})
    return str(answer["os-volume_upload_image"]["image_id"])


def same(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        return hashlib.file_digest(left, "sha256").digest() == hashlib.file_digest(right, "sha256").digest()


def test_there_and_back(site: Site) -> None:
    volume_id = written(site)
    image_id = upload(site, volume_id)
    site.api.settle(600)
    image = site.api.get(f"/image/v2/images/{image_id}")
    assert (image["status"], image["container_format"], image["disk_format"]) == ("active", "compressed", "raw")
    assert image["size"] < 16 * MiB
    (kept,) = site.layout.folder.rglob(f"images/{image_id}")
    with kept.open("rb") as raw:
        assert raw.read(2) == b"\x1f\x8b"
        raw.seek(-4, os.SEEK_END)
        assert int.from_bytes(raw.read(4), "little") == GiB
    with gzip.open(kept) as packed:
        packed.seek(500 * MiB)
        assert packed.read(len(DATA)) == DATA
    again = site.api.made("again", imageRef=image_id)
    assert same(path(site, again), path(site, volume_id))
    assert site.api.volume(volume_id)["status"] == "available"
    site.clean()


@pytest.mark.parametrize("container", ["bare", "compressed"])
def test_as_qcow2_there_and_back(site: Site, tmp_path: Path, container: str) -> None:
    volume_id = written(site)
    image_id = upload(site, volume_id, disk_format="qcow2", container_format=container)
    site.api.settle(600)
    image = site.api.get(f"/image/v2/images/{image_id}")
    assert (image["status"], image["container_format"], image["disk_format"]) == ("active", container, "qcow2"), image
    assert image["size"] < 16 * MiB
    (kept,) = site.layout.folder.rglob(f"images/{image_id}")
    if container == "compressed":
        (tmp_path / "unpacked").write_bytes(gzip.decompress(kept.read_bytes()))
        kept = tmp_path / "unpacked"
    else:
        assert image["virtual_size"] == GiB
    compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", kept, path(site, volume_id)]
    for words in (["qemu-img", "check", "-f", "qcow2", kept], compare):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    again = site.api.made("again", imageRef=image_id)
    assert same(path(site, again), path(site, volume_id))
    site.clean()


def test_an_encrypted_volume_is_not_compressed_and_stays_as_it_is(site: Site) -> None:
    volume_id = site.api.made("secret", volume_type=site.api.encrypted_type())
    for wanted in ({}, {"container_format": "bare", "disk_format": "qcow2"}):
        with pytest.raises(Refused, match="not compressed") as refused:
            upload(site, volume_id, **wanted)
        assert refused.value.status == 400
    assert site.api.volume(volume_id)["status"] == "available"
    site.clean()


def test_where_the_site_does_not_allow_it_nothing_is_begun(site: Site) -> None:
    """The last one here: it starts the coordinator anew."""
    volume_id = site.api.made("v")
    images = len(site.api.get("/image/v2/images")["images"])
    with pytest.raises(Refused) as refused:
        upload(site, volume_id, disk_format="vmdk")
    assert refused.value.status == 400
    site.coordinator.stop()
    site.restart("coordinator", "images.compressed_uploads=false")
    site.coordinator.heard("up")
    with pytest.raises(Refused) as refused:
        upload(site, volume_id)
    assert refused.value.status == 400
    assert site.api.volume(volume_id)["status"] == "available"
    assert len(site.api.get("/image/v2/images")["images"]) == images
    site.clean()
