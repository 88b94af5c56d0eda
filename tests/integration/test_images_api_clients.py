"""The real openstack command and SDK against the image API, over a real store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openstack
import pytest

from tests.integration.imageserver import Server, image_server

pytestmark = pytest.mark.clients


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with image_server(tmp_path) as made:
        yield made


def _connection(server: Server, user: str = "admin", project: str = "admin") -> Any:
    names = {name.removeprefix("OS_").lower(): value for name, value in server.openrc(user, project).items()}
    names.pop("identity_api_version")
    return openstack.connect(load_yaml_config=False, load_envvars=False, **names)


async def test_the_openstack_command_from_create_to_delete(server: Server, tmp_path: Path) -> None:
    content = os.urandom(5_000_001)
    (tmp_path / "disk.raw").write_bytes(content)
    code, out, err = await server.openstack(
        "image", "create", "disk", "--file", str(tmp_path / "disk.raw"), "--disk-format", "raw", "--container-format",
        "bare", "--property", "os_distro=debian", "--tag", "one", "--min-disk", "2", "-f", "json",
    )  # fmt: skip
    assert code == 0, err
    image_id = json.loads(out)["id"]

    code, out, err = await server.openstack("image", "show", "disk", "-f", "json")
    assert code == 0, err
    shown = json.loads(out)
    assert (shown["status"], shown["size"], shown["min_disk"]) == ("active", len(content), 2)
    assert shown["properties"]["os_distro"] == "debian"
    assert shown["properties"]["os_hash_value"] == hashlib.sha256(content).hexdigest()

    code, _, err = await server.openstack(
        "image", "set", "disk", "--name", "other", "--property", "os_version=12", "--tag", "two", "--min-ram", "64"
    )
    assert code == 0, err
    code, _, err = await server.openstack("image", "unset", "other", "--tag", "one", "--property", "os_distro")
    assert code == 0, err
    code, out, err = await server.openstack("image", "list", "--long", "-f", "json")
    assert code == 0, err
    (listed,) = json.loads(out)
    assert (listed["Name"], listed["Status"], listed["Tags"]) == ("other", "active", ["two"])

    code, _, err = await server.openstack("image", "save", image_id, "--file", str(tmp_path / "back.raw"))
    assert code == 0, err
    assert (tmp_path / "back.raw").read_bytes() == content

    code, _, err = await server.openstack("image", "delete", "other")
    assert code == 0, err
    assert server.site.files() == []


async def test_a_refused_image_tells_the_rule_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    (tmp_path / "evil.raw").write_bytes(b"QFI\xfb\0\0\0\3" + b"\0" * 100_000)
    code, _, err = await server.openstack(
        "image", "create", "evil", "--file", str(tmp_path / "evil.raw"), "--disk-format", "raw"
    )
    assert code != 0
    assert "signature of qcow" in err
    assert server.site.files() == []


async def test_the_sdk_pages_filters_and_moves_bytes(server: Server, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    path = tmp_path / "disk.raw"
    path.write_bytes(content)

    def work() -> None:
        cloud = _connection(server)
        images = [cloud.image.create_image(f"i{n}", disk_format="raw", container_format="bare") for n in range(5)]
        assert [image.name for image in cloud.image.images(limit=2)] == ["i4", "i3", "i2", "i1", "i0"]
        assert [image.name for image in cloud.image.images(name="i3")] == ["i3"]
        made = cloud.create_image("data", filename=str(path), disk_format="raw", wait=True, validate_checksum=True)
        assert made.status == "active"
        found = cloud.image.find_image("data")
        assert cloud.image.download_image(found).content == content
        cloud.image.update_image(found, name="renamed", protected=True)
        assert cloud.image.get_image(found.id).is_protected
        with pytest.raises(openstack.exceptions.ForbiddenException):
            cloud.image.delete_image(found.id, ignore_missing=False)
        cloud.image.update_image(found.id, is_protected=False)
        cloud.image.add_tag(found.id, "blue")
        assert [image.id for image in cloud.image.images(tag="blue")] == [found.id]
        for image in (*images, found):
            cloud.image.delete_image(image.id, ignore_missing=False)
        assert list(cloud.image.images()) == []
        assert cloud.image.find_image("renamed") is None

    await asyncio.to_thread(work)
    assert server.site.files() == []
