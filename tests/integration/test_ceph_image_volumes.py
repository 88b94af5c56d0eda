"""Images whose data are volumes in Ceph, and the image cache there: clones in the pool, whatever is killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.integration.test_volume_backed_images import HELD, PROJECT, SENT, Images, behind, images, uploaded
from tests.support import ceph
from tests.support.api import AWAY
from tests.support.ceph_site import Consumer, consuming

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800), ceph.NEEDED]
__all__ = ["images"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ceph.Cluster]:
    with ceph.running() as running:
        yield running


@pytest.fixture(scope="module")
def consumer(cluster: ceph.Cluster, images: Images) -> Iterator[Consumer]:
    sets = ("images.service=glance", f"images.glance.url={images.url}", "images.glance.auth=none",
            'images.glance.direct_url_schemes=["cinder"]', f"images.internal_project={PROJECT}",
            "images.glance.upload_clones=true")  # fmt: skip
    with consuming(cluster, *sets, image_cache=True) as made:
        images.owner = made.site.api.project
        yield made


def holding(consumer: Consumer) -> str:
    volume_id = consumer.site.api.made("holder")
    consumer.write(volume_id, HELD)
    return volume_id


def test_an_image_is_fetched_once_and_cloned_in_the_pool(consumer: Consumer, images: Images) -> None:
    image_id = images.add()
    first, second = (consumer.site.api.made("v", size=2, imageRef=image_id) for _ in range(2))
    assert images.fetched.count(image_id) == 1
    for volume_id in (first, second):
        assert consumer.read(volume_id, len(SENT)) == SENT
        assert "parent" in consumer.pool.about(f"byv-{volume_id}")
    consumer.site.clean()


@pytest.mark.kill
@pytest.mark.parametrize("point", ["", "backend.rbd.moment", "backend.rbd.cloned", "backend.rbd.published"])
def test_a_volume_becomes_an_image_by_a_clone(consumer: Consumer, images: Images, point: str) -> None:
    site, held = consumer.site, holding(consumer)
    site.clean()
    if point:
        site.parts["host-a"].arm(point)
    image_id = ""
    with suppress(*AWAY):
        image_id = uploaded(site, held)
    if point:
        assert site.parts["host-a"].died(300) == -signal.SIGKILL
        site.restart("host-a")
    site.api.settle(300)
    (row,) = behind(site, image_id)
    assert images.known[image_id]["locations"][0]["url"].endswith(row["id"])
    assert image_id not in images.sent
    assert consumer.pool.about(f"byv-{row['id']}")["parent"]["pool"] == ceph.POOL
    site.api.delete(f"/v3/volumes/{held}")
    site.api.settle(300)
    volume_id = site.api.made("of the image", imageRef=image_id)
    assert consumer.read(volume_id, len(HELD)) == HELD
    assert image_id not in images.fetched
    site.clean()
