"""The image cache on real processes: fetched once, cloned for others, evicted, never in the way, whatever is killed."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_signed_images import SIGNER, certificate
from tests.support.api import AWAY, Refused
from tests.support.signing import holder
from tests.support.site import Site, started

pytestmark = pytest.mark.timeout(900)
PROJECT = "cac0e000000000000000000000000000"
CACHE, COUNT = ("backends.files.image_cache=true", "backends.files.image_cache_max_count=2")
MiB, GiB = 1 << 20, 1 << 30


def cached_site(*more: str, count: str = COUNT) -> Site:
    site = Site(2, (f"images.internal_project={PROJECT}", *more))
    part = site.agents[site.volume_host]
    part.sets = (*part.sets, CACHE, count)
    return site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with started(cached_site()) as made:
        yield made


def content(word: str) -> bytes:
    return f"{word} ".encode() * 100_000


def image(site: Site, word: str, **properties: Any) -> str:
    body = {"name": word, "disk_format": "raw", "container_format": "bare", **properties}
    image_id = str(site.api.post("/image/v2/images", body)["id"])
    site.api.call("PUT", f"/image/v2/images/{image_id}/file", content(word))
    return image_id


def head(site: Site, volume_id: str, word: str) -> bytes:
    path: Path = site.layout.volumes(site.volume_host) / "volumes" / volume_id
    with path.open("rb") as file:
        return file.read(len(content(word)))


def made(site: Site, word: str, image_id: str, **more: Any) -> dict[str, Any]:
    volume = site.api.volume(site.api.made("v", imageRef=image_id, **more))
    assert hashlib.sha256(head(site, volume["id"], word)).digest() == hashlib.sha256(content(word)).digest()
    assert volume["volume_image_metadata"]["image_id"] == image_id
    return volume


def told(site: Site, image_id: str) -> list[str]:
    """What happened to the image in the cache, in order."""
    rows = site.truths.rows("SELECT type, payload FROM events WHERE type LIKE 'image_volume_cache.%' ORDER BY seq")
    return [row["type"].rpartition(".")[2] for row in rows if json.loads(row["payload"])["image_id"] == image_id]


def kept(site: Site) -> list[dict[str, Any]]:
    return [row for row in site.truths.live("volumes") if row["project_id"] == PROJECT]


def tidied(site: Site) -> None:
    """All truths agree, once what has left is gone."""
    until(lambda: not site.truths.rows("SELECT volume_id FROM image_cache WHERE leaving"))
    site.clean()


def until(what: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_second_volume_is_a_clone_and_nobody_sees_or_pays_for_what_is_kept(site: Site) -> None:
    first, before = image(site, "first"), site.api.usage()
    one = made(site, "first", first)
    other = made(site, "first", first, size=2)
    assert told(site, first) == ["miss", "hit"]
    assert (other["size"], other["bootable"], other["source_volid"]) == (2, "true", None)
    assert site.api.usage() == {**before, "volumes": before["volumes"] + 2, "gigabytes": before["gigabytes"] + 3}
    [hidden] = [row for row in kept(site) if row["image_id"] == first]
    assert (hidden["size"], hidden["status"]) == (1, "available")
    assert hidden["id"] not in {volume["id"] for volume in site.api.volumes()}
    assert one["volume_image_metadata"]["signature_verified"] == "False"
    tidied(site)


def test_what_is_kept_is_attached_to_nobody_and_not_changed(site: Site) -> None:
    safe = image(site, "safe")
    made(site, "safe", safe)
    [hidden] = [row["id"] for row in kept(site) if row["image_id"] == safe]
    actions: tuple[dict[str, Any], ...] = (
        {"os-attach": {"instance_uuid": str(uuid.uuid4()), "mountpoint": "/dev/vdb", "mode": "rw"}},
        {"os-reserve": {}}, {"os-extend": {"new_size": 2}}, {"os-reimage": {"image_id": safe}},
    )  # fmt: skip
    for action in actions:
        with pytest.raises(Refused, match="image cache") as refused:
            site.api.post(f"/v3/volumes/{hidden}/action", action)
        assert refused.value.status == 400
    for path, body in (
        ("/v3/attachments", {"attachment": {"volume_uuid": hidden, "instance_uuid": str(uuid.uuid4())}}),
        ("/brickyard/v1/attachments", {"volume_id": hidden, "host_id": site.volume_host}),
    ):
        with pytest.raises(Refused, match="image cache"):
            site.api.post(path, body)
    assert [row["status"] for row in kept(site) if row["id"] == hidden] == ["available"]
    made(site, "safe", safe)
    assert told(site, safe) == ["miss", "hit"]
    tidied(site)


def test_an_image_that_changed_is_fetched_anew(site: Site) -> None:
    changed = image(site, "changed")
    made(site, "changed", changed)
    [old] = [row["id"] for row in kept(site) if row["image_id"] == changed]
    patch = [{"op": "add", "path": "/colour", "value": "red"}]
    kind = "application/openstack-images-v2.1-json-patch"
    site.api.call("PATCH", f"/image/v2/images/{changed}", patch, kind=kind)
    again = made(site, "changed", changed)
    assert again["volume_image_metadata"]["colour"] == "red"
    assert told(site, changed) == ["miss", "evict", "miss"]
    until(lambda: old not in {row["id"] for row in kept(site)})
    tidied(site)


def test_the_least_recently_used_leaves_and_what_was_deleted_or_is_gone_is_no_trouble(site: Site) -> None:
    a, b, c = (image(site, word) for word in "abc")
    for word, each in (("a", a), ("b", b), ("a", a), ("c", c)):
        made(site, word, each)
    until(lambda: {row["image_id"] for row in kept(site)} == {a, c})
    assert told(site, b) == ["miss", "evict"]
    hidden = next(row["id"] for row in kept(site) if row["image_id"] == a)
    site.api.delete(f"/v3/volumes/{hidden}")
    made(site, "a", a)
    assert told(site, a)[-1] == "miss"
    # Gone on the host alone: the clones find nothing, it leaves, and the image is fetched.
    hidden = next(row["id"] for row in kept(site) if row["image_id"] == c)
    (site.layout.volumes(site.volume_host) / "volumes" / hidden).unlink()
    made(site, "c", c)
    assert told(site, c)[-2:] == ["evict", "miss"]
    made(site, "c", c)
    assert told(site, c)[-1] == "hit"
    site.api.delete(f"/image/v2/images/{a}")
    until(lambda: a not in {row["image_id"] for row in kept(site)})


def test_many_at_once_fetch_it_once(site: Site) -> None:
    many = image(site, "many")
    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(lambda _: site.api.create_volume("v", imageRef=many), range(4)))
    site.api.settle(300)
    for volume_id in ids:
        assert site.api.volume(volume_id)["status"] == "available"
        assert head(site, volume_id, "many") == content("many")
    assert sorted(told(site, many)) == ["hit", "hit", "hit", "miss"]


def test_what_is_signed_is_verified_before_it_is_kept_and_a_clone_does_not_claim_it(site: Site) -> None:
    properties = SIGNER.properties(content("signed"), certificate(site, SIGNER))
    signed = image(site, "signed", **properties)
    assert made(site, "signed", signed)["volume_image_metadata"]["signature_verified"] == "True"
    assert made(site, "signed", signed)["volume_image_metadata"]["signature_verified"] == "False"
    assert told(site, signed) == ["miss", "hit"]
    forged = image(site, "forged", **properties)
    volume_id = site.api.create_volume("v", imageRef=forged)
    site.api.settle(60)
    assert site.api.volume(volume_id)["status"] == "error"
    assert not [row for row in kept(site) if row["image_id"] == forged]
    other = holder("other")
    stranger = image(site, "signed", **other.properties(content("signed"), certificate(site, SIGNER)))
    volume_id = site.api.create_volume("v", imageRef=stranger)
    site.api.settle(60)
    assert site.api.volume(volume_id)["status"] == "error"
    tidied(site)


def test_encrypted_volumes_and_images_larger_than_the_cache_pass_it_by(site: Site) -> None:
    plain = image(site, "plain")
    site.api.made("v", imageRef=plain, volume_type=site.api.encrypted_type())
    assert told(site, plain) == []
    before = {row["id"] for row in kept(site)}
    site.agents[site.volume_host].stop()
    site.restart(site.volume_host, "backends.files.image_cache_max_gib=1")
    until(lambda: '"image_cache_max_gib": 1' in str(site.truths.rows("SELECT reported FROM pools")[0]["reported"]))
    large = image(site, "large", min_disk=2)
    made(site, "large", large, size=2)
    assert told(site, large) == []
    assert {row["id"] for row in kept(site)} == before


KILLS = [
    *(("coordinator", f"coordinator.step.committed@{n}") for n in range(1, 7)),
    *(("coordinator", f"coordinator.job.{point}@{n}") for point in ("before-post", "result-in-hand") for n in (2, 3)),
    *(("host-b", f"agent.job.{point}@{n}") for point in ("started", "effect-done", "finished") for n in (1, 2)),
]


@pytest.mark.kill
@pytest.mark.parametrize(("part", "fault"), KILLS)
def test_killed_anywhere_it_goes_on_and_is_kept_once(site: Site, part: str, fault: str) -> None:
    killed = image(site, "killed")
    site.parts[part].arm(fault)
    name = f"killed at {fault}"
    with suppress(*AWAY):
        site.api.create_volume(name, imageRef=killed)
    try:
        site.parts[part].died(60)
    except TimeoutError:
        site.parts[part].arm(None)
        pytest.skip("it does not pass there so often")
    site.restart(part)
    volume_id = next(volume["id"] for volume in site.api.volumes() if volume["name"] == name)
    site.api.settle(120)
    assert site.api.volume(volume_id)["status"] == "available"
    assert head(site, volume_id, "killed") == content("killed")
    assert made(site, "killed", killed)["size"] == 1
    assert len([row for row in kept(site) if row["image_id"] == killed]) == 1
    tidied(site)
