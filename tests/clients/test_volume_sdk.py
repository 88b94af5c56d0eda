"""Volumes with openstacksdk: by password in two projects, by http_basic, and without authentication."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openstack
import pytest
from openstack import exceptions

from tests.clients.livesite import LiveSite, live_site

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]
WAIT = {"interval": 0.1, "wait": 20}


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    with live_site() as site:
        site.people()
        yield site


def connected(site: LiveSite, who: str, version: str | None = "3.71") -> Any:
    return openstack.connection.Connection(
        session=site.session(who), region_name="RegionOne", block_storage_api_version="3",
        block_storage_default_microversion=version,
    )  # fmt: skip


def there_and_back(storage: Any) -> None:
    """Create, extend, snapshot, reserve, delete."""
    volume = storage.wait_for_status(
        storage.create_volume(size=1, name="sdk", metadata={"a": "b"}), "available", **WAIT
    )
    assert (volume.name, volume.size, volume.metadata) == ("sdk", 1, {"a": "b"})
    storage.extend_volume(volume, 2)
    volume = storage.wait_for_status(storage.get_volume(volume.id), "available", **WAIT)
    assert volume.size == 2
    snapshot = storage.create_snapshot(volume_id=volume.id, name="s")
    snapshot = storage.wait_for_status(snapshot, "available", **WAIT)
    assert [item.id for item in storage.snapshots(details=True, volume_id=volume.id)] == [snapshot.id]
    copy = storage.wait_for_status(storage.create_volume(snapshot_id=snapshot.id, size=2), "available", **WAIT)
    assert copy.snapshot_id == snapshot.id
    with pytest.raises(exceptions.BadRequestException, match="dependent snapshots"):
        storage.delete_volume(volume.id)
    storage.delete_snapshot(snapshot)
    storage.wait_for_delete(snapshot, **WAIT)
    attachment = storage.create_attachment(volume.id, connector=None)
    assert storage.get_attachment(attachment.id).status == "reserved"
    storage.delete_attachment(attachment.id)
    assert storage.get_volume(volume.id).status == "available"
    for item in (volume, copy):
        storage.delete_volume(item)
        storage.wait_for_delete(item, **WAIT)
    assert list(storage.volumes()) == []


def test_member(site: LiveSite) -> None:
    there_and_back(connected(site, "rita").block_storage)


def test_the_cloud_layer(site: LiveSite) -> None:
    cloud = connected(site, "bert", None)
    volume = cloud.create_volume(size=1, name="cloud", wait=True, timeout=100)
    assert (volume.status, cloud.get_volume("cloud").id) == ("available", volume.id)
    snapshot = cloud.create_volume_snapshot(volume.id, wait=True, timeout=30, name="snap")
    assert cloud.delete_volume_snapshot(snapshot.id, wait=True, timeout=100)
    assert cloud.delete_volume("cloud", wait=True, timeout=100)
    assert cloud.get_volume("cloud") is None


def test_pages_follow_the_links(site: LiveSite) -> None:
    storage = connected(site, "rita").block_storage
    made = [storage.create_volume(size=1, name=f"p{number}") for number in range(5)]
    assert [volume.name for volume in storage.volumes(limit=2)] == [f"p{number}" for number in (4, 3, 2, 1, 0)]
    assert [volume.name for volume in storage.volumes(details=False, name="p3")] == ["p3"]
    site.settled("rita")
    for volume in made:
        storage.delete_volume(volume)
    site.settled("rita")


def test_roles_and_projects(site: LiveSite) -> None:
    red, blue, reader, admin = (connected(site, who).block_storage for who in ("rita", "bert", "rolf", "admin"))
    volume = red.create_volume(size=1)
    site.settled("rita")
    assert reader.get_volume(volume.id).host is None
    assert admin.get_volume(volume.id).host.startswith("host-")
    with pytest.raises(exceptions.ForbiddenException):
        reader.create_volume(size=1)
    with pytest.raises(exceptions.ForbiddenException):
        reader.delete_volume(volume.id)
    with pytest.raises(exceptions.ForbiddenException):
        red.reset_volume_status(volume.id, "error", None, None)
    for call in (blue.get_volume, blue.delete_volume):
        with pytest.raises(exceptions.NotFoundException):
            call(volume.id, **({"ignore_missing": False} if call == blue.delete_volume else {}))
    with pytest.raises(exceptions.NotFoundException):
        blue.create_snapshot(volume_id=volume.id)
    assert list(blue.volumes()) == []
    assert [item.id for item in admin.volumes(all_projects=True)] == [volume.id]
    assert list(admin.volumes()) == []
    with pytest.raises(exceptions.BadRequestException, match="size"):
        red.create_volume(size=0)
    with pytest.raises(exceptions.HttpException, match="exceeds allowed") as over:
        red.create_volume(size=2000)
    assert over.value.status_code == 413
    admin.delete_volume(volume.id, force=True)
    site.settled("rita")


@pytest.mark.parametrize("strategy", ["basic", "none"])
def test_without_tokens(strategy: str) -> None:
    with live_site(f"identity.strategy={strategy}", agents=1) as site:
        if strategy == "none":
            auth = {"endpoint": f"{site.url}/v3"}
        else:
            rc = site.openrc
            auth = {"endpoint": f"{site.url}/v3", "username": rc["OS_USERNAME"], "password": rc["OS_PASSWORD"]}
        cloud = openstack.connection.Connection(
            auth_type="none" if strategy == "none" else "http_basic", auth=auth,
            block_storage_endpoint_override=f"{site.url}/v3", block_storage_default_microversion="3.71",
        )  # fmt: skip
        there_and_back(cloud.block_storage)
        cloud.close()
