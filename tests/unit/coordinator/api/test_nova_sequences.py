"""What Nova sends, call by call, for what servers do with volumes: each script is replayed and must come out right.

Nova talks as the user, with its own token beside that (`X-Service-Token`), at 3.44; attachments made so are its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api

SERVER = "11111111-2222-3333-4444-555555555555"
SERVICE = {"X-Service-Token": "nova"}
SOURCE = {"host": "host-a", "initiator": "iqn.2026-01.org.example:one", "ip": "192.0.2.1", "multipath": False,
          "os_type": "linux2", "platform": "x86_64", "do_local_attach": False}  # fmt: skip
TARGET = {**SOURCE, "initiator": "iqn.2026-01.org.example:two", "ip": "192.0.2.2"}


class Nova:
    """The calls of Nova's volume client. Each must succeed unless `refused` is told."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def send(self, method: str, path: str, body: Any = None, version: int = 44) -> Any:
        answer = await self.api(method, path, version=version, headers=SERVICE, json=body)
        assert answer.status < 300, (method, path, answer.body)
        return answer.body

    async def volume(self, volume: str) -> dict[str, Any]:
        return dict((await self.send("GET", f"/volumes/{volume}"))["volume"])

    async def reserve(self, volume: str, server: str = SERVER) -> str:
        wanted = {"volume_uuid": volume, "instance_uuid": server, "connector": None}
        return str((await self.send("POST", "/attachments", {"attachment": wanted}))["attachment"]["id"])

    async def connect(self, attachment: str, connector: dict[str, Any], mountpoint: str = "/dev/vda") -> dict[str, Any]:
        body = {"attachment": {"connector": {**connector, "mountpoint": mountpoint}}}
        return dict((await self.send("PUT", f"/attachments/{attachment}", body))["attachment"]["connection_info"])

    async def complete(self, attachment: str) -> None:
        await self.send("POST", f"/attachments/{attachment}/action", {"os-complete": attachment})

    async def attached(self, volume: str, connector: dict[str, Any] = SOURCE, server: str = SERVER) -> str:
        attachment = await self.reserve(volume, server)
        await self.connect(attachment, connector)
        await self.complete(attachment)
        return attachment

    async def delete(self, attachment: str) -> None:
        await self.send("DELETE", f"/attachments/{attachment}")

    async def act(self, volume: str, name: str, body: Any = None) -> Any:
        return await self.send("POST", f"/volumes/{volume}/action", {name: body})


@pytest.fixture
async def nova(tmp_path: Path) -> AsyncIterator[Nova]:
    async with volume_api(tmp_path) as api:
        yield Nova(api)


async def users_delete(nova: Nova, attachment: str) -> Answered:
    """What a user tries behind Nova's back."""
    return await nova.api("DELETE", f"/attachments/{attachment}")


async def test_boot_from_volume_and_delete_the_server(nova: Nova) -> None:
    volume = (await nova.api.volume())["id"]
    await nova.act(volume, "os-set_bootable", {"bootable": True})
    attachment = await nova.reserve(volume)
    assert (await nova.volume(volume))["status"] == "reserved"
    info = await nova.connect(attachment, SOURCE)
    assert info["attachment_id"] == attachment
    assert (await nova.volume(volume))["status"] == "attaching"
    await nova.complete(attachment)
    shown = await nova.volume(volume)
    assert (shown["status"], shown["attachments"][0]["server_id"]) == ("in-use", SERVER)
    assert (await users_delete(nova, attachment)).status == 409
    await nova.delete(attachment)
    assert (await nova.volume(volume))["status"] == "available"


async def test_a_build_that_fails_gives_the_volume_back(nova: Nova) -> None:
    volume = (await nova.api.volume())["id"]
    attachment = await nova.reserve(volume)
    await nova.connect(attachment, SOURCE)
    await nova.delete(attachment)
    assert (await nova.volume(volume))["status"] == "available"


async def test_attach_and_detach_of_a_running_server(nova: Nova) -> None:
    volume = (await nova.api.volume())["id"]
    attachment = await nova.attached(volume)
    await nova.act(volume, "os-begin_detaching")
    assert (await nova.volume(volume))["status"] == "detaching"
    await nova.act(volume, "os-roll_detaching")
    assert (await nova.volume(volume))["status"] == "in-use"
    await nova.act(volume, "os-begin_detaching")
    await nova.delete(attachment)
    assert (await nova.volume(volume))["status"] == "available"


async def test_swap_to_another_volume(nova: Nova) -> None:
    old, new = (await nova.api.volume())["id"], (await nova.api.volume())["id"]
    before = await nova.attached(old)
    await nova.act(old, "os-begin_detaching")
    after = await nova.reserve(new)
    await nova.connect(after, SOURCE)
    await nova.complete(after)
    await nova.delete(before)
    assert [(await nova.volume(one))["status"] for one in (old, new)] == ["available", "in-use"]


async def test_a_swap_that_fails_is_rolled_back(nova: Nova) -> None:
    old, new = (await nova.api.volume())["id"], (await nova.api.volume())["id"]
    await nova.attached(old)
    await nova.act(old, "os-begin_detaching")
    after = await nova.reserve(new)
    await nova.delete(after)
    await nova.act(old, "os-roll_detaching")
    assert [(await nova.volume(one))["status"] for one in (old, new)] == ["in-use", "available"]


async def test_live_migration_with_a_second_attachment(nova: Nova) -> None:
    volume = (await nova.api.volume())["id"]
    source = await nova.attached(volume, SOURCE)
    target = await nova.reserve(volume)
    await nova.connect(target, TARGET)
    assert (await nova.volume(volume))["status"] == "in-use"
    await nova.complete(target)
    await nova.delete(source)
    shown = await nova.volume(volume)
    assert (shown["status"], [one["attachment_id"] for one in shown["attachments"]]) == ("in-use", [target])


async def test_a_live_migration_that_fails_keeps_the_source(nova: Nova) -> None:
    volume = (await nova.api.volume())["id"]
    source = await nova.attached(volume, SOURCE)
    target = await nova.reserve(volume)
    await nova.connect(target, TARGET)
    await nova.delete(target)
    shown = await nova.volume(volume)
    assert (shown["status"], [one["attachment_id"] for one in shown["attachments"]]) == ("in-use", [source])


async def test_live_migration_the_older_way(nova: Nova) -> None:
    volume = (await nova.api.volume())["id"]
    await nova.act(volume, "os-reserve")
    await nova.act(volume, "os-initialize_connection", {"connector": SOURCE})
    await nova.act(volume, "os-attach", {"instance_uuid": SERVER, "mountpoint": "/dev/vdb", "mode": "rw"})
    await nova.act(volume, "os-initialize_connection", {"connector": TARGET})
    await nova.act(volume, "os-terminate_connection", {"connector": SOURCE})
    shown = await nova.volume(volume)
    assert (shown["status"], [one["server_id"] for one in shown["attachments"]]) == ("in-use", [SERVER])
    await nova.act(volume, "os-begin_detaching")
    await nova.act(volume, "os-terminate_connection", {"connector": TARGET})
    await nova.act(volume, "os-detach", {"attachment_id": shown["attachments"][0]["attachment_id"]})
    assert (await nova.volume(volume))["status"] == "available"
    assert (await nova.send("GET", "/attachments"))["attachments"] == []


async def test_rebuild_keeps_the_volume_for_its_server(nova: Nova) -> None:
    volume = (await nova.api.volume())["id"]
    old = await nova.attached(volume)
    new = await nova.reserve(volume)
    await nova.delete(old)
    assert (await nova.volume(volume))["status"] == "reserved"
    foreign = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER.replace("1", "2")}}
    assert (await nova.api("POST", "/attachments", json=foreign)).status == 400
    await nova.connect(new, SOURCE)
    await nova.complete(new)
    assert (await nova.volume(volume))["status"] == "in-use"


async def test_evacuation_attaches_before_the_dead_host_can_detach(nova: Nova) -> None:
    volume = (await nova.api.volume())["id"]
    dead = await nova.attached(volume, SOURCE)
    alive = await nova.reserve(volume)
    await nova.connect(alive, TARGET)
    await nova.complete(alive)
    assert len((await nova.volume(volume))["attachments"]) == 2
    await nova.delete(dead)
    shown = await nova.volume(volume)
    assert (shown["status"], [one["attachment_id"] for one in shown["attachments"]]) == ("in-use", [alive])


async def test_shelve_offload_reserves_until_unshelved(nova: Nova) -> None:
    volume = (await nova.api.volume())["id"]
    running = await nova.attached(volume)
    shelved = await nova.reserve(volume)
    await nova.delete(running)
    assert (await nova.volume(volume))["status"] == "reserved"
    await nova.connect(shelved, TARGET)
    await nova.complete(shelved)
    await nova.delete(shelved)
    assert (await nova.volume(volume))["status"] == "available"
