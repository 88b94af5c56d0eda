"""A real Glance whose store are volumes of the site, by its own calls for locations; and its images in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.error
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Refused
from tests.support.cloud import PATIENCE_S, Cloud, GlanceSite
from tests.support.cloud import cloud as standing
from tests.support.glance import VOLUMES

pytestmark = [pytest.mark.slow, pytest.mark.clients, pytest.mark.timeout(1800)]
MiB, GiB = 1 << 20, 1 << 30
PROJECT = "cac0e000000000000000000000000000"
DATA = os.urandom(2 * MiB)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    sets = ('images.glance.direct_url_schemes=["cinder"]', f"images.internal_project={PROJECT}",
            "images.glance.upload_clones=true")  # fmt: skip
    keeps = ("backends.files.image_cache=true", "backends.files.image_cache_max_count=4")
    make = partial(GlanceSite, sets=sets, agent_sets=keeps)
    with standing(tmp_path_factory.mktemp("cloud"), make, volumes=True) as made:
        yield made


def until(what: Callable[[], Any], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def head(cloud: Cloud, volume_id: str, size: int = len(DATA)) -> bytes:
    with cloud.site.volume(volume_id).open("rb") as file:
        return file.read(size)


def volume(cloud: Cloud, name: str, *words: str) -> dict[str, Any]:
    made = cloud.run("volume", "create", *words, name, "-f", "json")
    found = cloud.site.settled(made["id"])
    assert found["status"] == "available", (found, cloud.site.api.get("/v3/messages"), cloud.site.logs())
    return found


def uploaded(cloud: Cloud, source: str, name: str, *words: str) -> dict[str, Any]:
    answer = cloud.run("image", "create", "--volume", source, *words, name, "-f", "json")
    image = cloud.image(answer["image_id"])
    cloud.site.api.settle(PATIENCE_S)
    return image


def behind(cloud: Cloud, image_id: str) -> list[dict[str, Any]]:
    return [row for row in cloud.site.truths.live("volumes") if row["name"] == f"image-{image_id}"]


def files(cloud: Cloud) -> set[str]:
    """Images whose data the Glance itself has."""
    return {path.name for store in ("reliable", "cheap") for path in (cloud.images.folder / store).iterdir()}


def told(cloud: Cloud, image_id: str) -> list[str]:
    query = "SELECT type, payload FROM events WHERE type LIKE 'image_volume_cache.%' ORDER BY seq"
    rows = cloud.site.truths.rows(query)
    return [row["type"].rpartition(".")[2] for row in rows if json.loads(row["payload"])["image_id"] == image_id]


def kept(cloud: Cloud, image_id: str) -> list[str]:
    live = cloud.site.truths.live("volumes")
    return [row["id"] for row in live if row["project_id"] == PROJECT and row["image_id"] == image_id]


def test_a_volume_is_an_image_by_a_clone_and_goes_with_it(cloud: Cloud) -> None:
    source = volume(cloud, "source", "--size", "1")
    with cloud.site.volume(source["id"]).open("r+b") as file:
        file.write(DATA)
    image = uploaded(cloud, "source", "cloned")
    assert (image["status"], image["size"], image["stores"]) == ("active", GiB, VOLUMES), cloud.site.logs()
    assert "locations" not in image, "users see none"
    [row] = behind(cloud, image["id"])
    assert image["id"] not in files(cloud)
    # A volume of it needs no download, and the volume that it came from no longer.
    cloud.run("volume", "delete", "source")
    cloud.site.api.settle(PATIENCE_S)
    again = volume(cloud, "again", "--image", "cloned", "--size", "2")
    assert (again["size"], head(cloud, again["id"])) == (2, DATA)
    # The service's own store deletes the volume through the API of volumes.
    cloud.run("image", "delete", "cloned")
    until(lambda: not behind(cloud, image["id"]))
    assert not cloud.site.volume(row["id"]).exists()
    cloud.run("volume", "delete", "again")
    cloud.site.clean()


def test_the_store_of_the_type_wins_and_an_encrypted_volume_is_sent(cloud: Cloud) -> None:
    cloud.run("volume", "type", "create", "sealed", "--property", "image_service:store_id=cheap",
              "--encryption-provider", "luks", "-f", "json", who="boss")  # fmt: skip
    made = volume(cloud, "sealed", "--type", "sealed", "--size", "1")
    image = uploaded(cloud, made["id"], "image-of-it")
    assert (image["status"], image["stores"], behind(cloud, image["id"])) == ("active", "cheap", [])
    with cloud.site.volume(made["id"]).open("rb") as file:
        assert hashlib.file_digest(file, "sha512").hexdigest() == image["os_hash_value"]
    with pytest.raises(Refused, match="image"):
        cloud.site.api.delete(f"/brickyard/v1/keys/{image['os_encrypt_key_id']}")
    cloud.run("image", "delete", image["id"])
    cloud.run("volume", "delete", made["id"])
    # The key of an image that is gone goes, too.
    until(lambda: not cloud.site.truths.rows("SELECT * FROM registered_images"))
    cloud.site.clean()


def test_an_image_of_a_snapshots_volume_has_what_the_first_image_had(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(DATA)
    cloud.run("image", "create", "--file", str(tmp_path / "disk"), "--disk-format", "raw", "--property",
              "hw_disk_bus=scsi", "--min-ram", "64", "first", "-f", "json")  # fmt: skip
    made = volume(cloud, "installed", "--image", "first", "--size", "1")
    cloud.run("volume", "snapshot", "create", "--volume", "installed", "then", "-f", "json")
    cloud.site.api.settle(PATIENCE_S)
    with cloud.site.volume(made["id"]).open("r+b") as file:
        file.write(b"later")
    restored = volume(cloud, "restored", "--snapshot", "then")
    assert (restored["bootable"], restored["volume_image_metadata"]["hw_disk_bus"]) == ("true", "scsi")
    cloud.run("volume", "set", "--image-property", "hw_disk_bus=virtio", "restored")
    image = uploaded(cloud, "restored", "second")
    assert (image["hw_disk_bus"], image["min_ram"], image["min_disk"]) == ("virtio", 0, 1)
    assert not {"signature_verified", "image_id", "image_name"} & image.keys()
    last = volume(cloud, "last", "--image", "second", "--size", "1")
    assert head(cloud, last["id"]) == DATA
    cloud.run("volume", "snapshot", "delete", "then")
    cloud.site.api.settle(PATIENCE_S)
    cloud.run("volume", "delete", "installed", "restored", "last")
    cloud.run("image", "delete", "first", "second")
    until(lambda: not behind(cloud, image["id"]))


def test_what_is_kept_of_an_image_follows_it(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(DATA)
    made = cloud.run("image", "create", "--file", str(tmp_path / "disk"), "--disk-format", "raw", "kept", "-f", "json")
    one, other = (volume(cloud, name, "--image", "kept", "--size", "1") for name in ("one", "other"))
    assert told(cloud, made["id"]) == ["miss", "hit"]
    assert head(cloud, one["id"]) == head(cloud, other["id"]) == DATA
    [hidden] = kept(cloud, made["id"])
    with pytest.raises(Refused, match="image cache"):
        cloud.site.api.post(f"/v3/volumes/{hidden}/action", {"os-extend": {"new_size": 2}})
    # Nobody else gets it by way of what is kept.
    cloud.run("volume", "create", "--image", made["id"], "--size", "1", "x", who="bea", project="two", fails=True)
    # Another version of it.
    cloud.run("image", "set", "--property", "colour=red", "kept")
    third = volume(cloud, "third", "--image", "kept", "--size", "1")
    assert third["volume_image_metadata"]["colour"] == "red"
    assert told(cloud, made["id"]) == ["miss", "hit", "evict", "miss"]
    # Its service has it no more: whoever asks for it in vain has that looked after.
    cloud.run("image", "delete", "kept")
    with pytest.raises(Refused):
        cloud.site.api.create_volume("late", imageRef=made["id"])
    until(lambda: not kept(cloud, made["id"]))
    cloud.run("volume", "delete", "one", "other", "third")
    cloud.site.api.settle(PATIENCE_S)
    cloud.site.clean()


def test_nobody_makes_a_volume_of_another_his_image(cloud: Cloud) -> None:
    secret = volume(cloud, "secret", "--size", "1")
    theirs = cloud.token("bea", "two")
    values = {"name": "trick", "disk_format": "raw", "container_format": "bare"}
    image = cloud.images.call("POST", "/v2/images", values, token=theirs)["id"]
    place = {"url": f"cinder://{VOLUMES}/{secret['id']}"}
    for method, path, body in (
        ("POST", f"/v2/images/{image}/locations", place),
        ("GET", f"/v2/images/{image}/locations", None),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            cloud.images.call(method, path, body, token=theirs)
        assert refused.value.code == 403
    cloud.images.call("DELETE", f"/v2/images/{image}", token=theirs)
    cloud.run("volume", "delete", "secret")
    cloud.site.api.settle(PATIENCE_S)
    cloud.site.clean()
