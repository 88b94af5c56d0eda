"""Attachments of consumers on other hosts: what their volume's host is told to offer, and what they are told of it.

The agent is real up to the kernel; a table in memory stands for the kernel's target.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import Permanent
from agent.targets.base import Consumer, Offered
from agent.wire.jobs import Connection, Portal
from coordinator.state import operations
from tests.unit.coordinator.api.test_volume_connections import SERVER, status, text
from tests.unit.coordinator.api.volumesite import Api, volume_api

SERVICE = {"X-Service-Token": "nova"}


def connector(name: str) -> dict[str, Any]:
    return {"host": name, "initiator": f"iqn.2026-01.org.example:{name}", "ip": "192.0.2.9"}


class OutOfTargets(Permanent):
    code = "test.out-of-targets"
    sentence = "The kernel has no target left."


@dataclass
class Table:
    """What the kernel offers: by volume the consumers, each with its secret."""

    protocol: str = "iscsi"
    modules: tuple[str, ...] = ()
    volumes: dict[str, dict[str, Consumer]] = field(default_factory=dict)
    broken: bool = False

    async def apply(self, volume_id: str, path: Path, consumers: Sequence[Consumer]) -> Mapping[str, Connection]:
        if self.broken:
            raise OutOfTargets
        assert path.exists()
        self.volumes[volume_id] = {one.attachment_id: one for one in consumers}
        return {one.attachment_id: self._told(volume_id, one) for one in consumers}

    def _told(self, volume_id: str, one: Consumer) -> Connection:
        portals = (Portal(address="192.0.2.1", port=3260), Portal(address="2001:db8::1", port=3260))
        return Connection(
            protocol="iscsi", target=f"iqn.2026-01.org.brickyard:{volume_id}", portals=portals, lun=1,
            identity="naa.6001405", serial="s", size_bytes=1 << 30, auth="chap", username=one.username,
        )  # fmt: skip

    async def withdraw(self, volume_id: str) -> bool:
        return self.volumes.pop(volume_id, None) is not None

    async def grow(self, volume_id: str, size: int) -> None:
        """Consumers see the file itself here."""

    def offered(self) -> Mapping[str, Offered]:
        return {
            volume_id: Offered({}, True, frozenset(one.initiator for one in users.values()), frozenset())
            for volume_id, users in self.volumes.items()
        }

    def users(self, volume_id: str) -> set[str]:
        return {one.initiator.rpartition(":")[2] for one in self.volumes.get(volume_id, {}).values()}


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
async def api(tmp_path: Path, table: Table) -> AsyncIterator[Api]:
    async with volume_api(tmp_path, targets={"iscsi": table}, sync_timeout=20) as made:
        yield made
        assert await made.here.db.read(lambda conn: operations.listing(conn, active=True)) == []


async def reserved(api: Api, volume: str, server: str = SERVER) -> str:
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": server}}
    made = await api("POST", "/attachments", json=body, headers=SERVICE)
    assert made.status == 200, made.body
    return str(made.body["attachment"]["id"])


async def connected(api: Api, attachment: str, name: str) -> dict[str, Any]:
    body = {"attachment": {"connector": connector(name)}}
    made = await api("PUT", f"/attachments/{attachment}", json=body, headers=SERVICE)
    assert made.status == 200, made.body
    return dict(made.body["attachment"]["connection_info"])


async def test_an_update_answers_with_all_that_os_brick_needs(api: Api, table: Table) -> None:
    volume = (await api.volume())["id"]
    attachment = await reserved(api, volume)
    assert table.volumes == {}
    info = await connected(api, attachment, "far")
    used = table.volumes[volume][attachment]
    assert used.secret is not None
    assert (info["driver_volume_type"], info["target_iqn"], info["target_lun"], info["access_mode"]) == (
        "iscsi", f"iqn.2026-01.org.brickyard:{volume}", 1, "rw")  # fmt: skip
    assert info["target_portals"] == ["192.0.2.1:3260", "[2001:db8::1]:3260"]
    assert (info["target_portal"], len(info["target_iqns"]), info["target_luns"]) == ("192.0.2.1:3260", 2, [1, 1])
    assert (info["auth_method"], info["auth_username"]) == ("CHAP", used.username)
    assert info["auth_password"] == used.secret.decode()
    assert await connected(api, attachment, "far") == info
    assert (await api("GET", f"/attachments/{attachment}")).body["attachment"]["connection_info"] == info
    assert "auth_password" not in str((await api("GET", "/attachments/detail")).body)
    other = {"attachment": {"connector": connector("other")}}
    refused = await api("PUT", f"/attachments/{attachment}", json=other, headers=SERVICE)
    assert (refused.status, "another consumer" in text(refused)) == (409, True)
    await api("POST", f"/attachments/{attachment}/action", json={"os-complete": None}, headers=SERVICE)
    assert await status(api, volume) == "in-use"
    gone = await api("DELETE", f"/attachments/{attachment}", headers=SERVICE)
    assert (gone.status, gone.body, table.volumes) == (200, {"attachments": []}, {})
    assert await status(api, volume) == "available"


async def test_nobody_is_connected_without_a_name_that_a_transport_knows(api: Api, table: Table) -> None:
    volume = (await api.volume())["id"]
    attachment = await reserved(api, volume)
    for given in ({"host": "far"}, {"host": "far", "nqn": "nqn.2026-01.org.example:far"}):
        refused = await api("PUT", f"/attachments/{attachment}", json={"attachment": {"connector": given}})
        assert (refused.status, "no transport" in text(refused)) == (409, True)
    assert table.volumes == {}
    assert await status(api, volume) == "reserved"


async def test_live_migration_is_offered_to_both_hosts_and_then_to_one(api: Api, table: Table) -> None:
    volume = (await api.volume())["id"]
    source, target = await reserved(api, volume), None
    await connected(api, source, "one")
    await api("POST", f"/attachments/{source}/action", json={"os-complete": None}, headers=SERVICE)
    target = await reserved(api, volume)
    await connected(api, target, "two")
    assert table.users(volume) == {"one", "two"}
    assert await status(api, volume) == "in-use"
    await api("POST", f"/attachments/{target}/action", json={"os-complete": None}, headers=SERVICE)
    assert (await api("DELETE", f"/attachments/{source}", headers=SERVICE)).status == 200
    assert table.users(volume) == {"two"}
    assert await status(api, volume) == "in-use"
    assert (await api("DELETE", f"/attachments/{target}", headers=SERVICE)).status == 200
    assert table.volumes == {}


async def test_the_older_calls_offer_and_cut(api: Api, table: Table) -> None:
    volume = (await api.volume())["id"]
    both = await asyncio.gather(
        *(api.act(volume, "os-initialize_connection", {"connector": connector("far")}) for _ in range(3))
    )
    assert [answer.status for answer in both] == [200, 200, 200], [answer.body for answer in both]
    assert both[0].body == both[1].body == both[2].body
    assert "auth_password" in both[0].body["connection_info"]["data"]
    assert table.users(volume) == {"far"}
    await api.act(volume, "os-attach", {"instance_uuid": SERVER, "mountpoint": "/dev/vdb"})
    await api.act(volume, "os-begin_detaching")
    for _ in range(2):
        done = await api.act(volume, "os-terminate_connection", {"connector": connector("far")})
        assert (done.status, table.volumes) == (202, {})
    assert await status(api, volume) == "in-use"
    assert (await api.act(volume, "os-detach", {})).status == 202
    assert await status(api, volume) == "available"


async def test_detach_cuts_what_was_never_terminated(api: Api, table: Table) -> None:
    volume = (await api.volume())["id"]
    for end, who in (("os-detach", "worker"), ("os-force_detach", "root")):
        await api.act(volume, "os-initialize_connection", {"connector": connector("far")})
        await api.act(volume, "os-attach", {"instance_uuid": SERVER, "mountpoint": "/dev/vdb"})
        assert table.users(volume) == {"far"}
        assert (await api.act(volume, end, {}, who=who)).status == 202
        assert (table.volumes, await status(api, volume)) == ({}, "available")
    await api.act(volume, "os-initialize_connection", {"connector": connector("far")})
    await api.act(volume, "os-attach", {"instance_uuid": SERVER, "mountpoint": "/dev/vdb"})
    body = {"status": "available", "attach_status": "detached", "force": True}
    assert (await api.act(volume, "os-reset_status", body, who="root")).status == 202
    await api.settled()
    assert (table.volumes, await status(api, volume)) == ({}, "available")


async def test_the_same_end_twice_at_once_is_one(api: Api, table: Table) -> None:
    volume = (await api.volume())["id"]
    attachment = await reserved(api, volume)
    await connected(api, attachment, "far")
    ends = await asyncio.gather(*(api("DELETE", f"/attachments/{attachment}", headers=SERVICE) for _ in range(4)))
    assert {answer.status for answer in ends} <= {200, 404}, [answer.body for answer in ends]
    assert 200 in {answer.status for answer in ends}
    assert (table.volumes, await status(api, volume)) == ({}, "available")


async def test_an_export_that_fails_leaves_what_was_there_before(api: Api, table: Table) -> None:
    volume = (await api.volume())["id"]
    attachment = await reserved(api, volume)
    table.broken = True
    body = {"attachment": {"connector": connector("far")}}
    failed = await api("PUT", f"/attachments/{attachment}", json=body, headers=SERVICE)
    assert (failed.status, "no target left" in text(failed)) == (400, True)
    shown = (await api("GET", f"/attachments/{attachment}")).body["attachment"]
    assert (shown["status"], shown["connection_info"], await status(api, volume)) == ("reserved", {}, "reserved")
    table.broken = False
    assert (await connected(api, attachment, "far"))["driver_volume_type"] == "iscsi"
    await api("DELETE", f"/attachments/{attachment}", headers=SERVICE)
    table.broken = True
    failed = await api.act(volume, "os-initialize_connection", {"connector": connector("far")})
    assert failed.status == 400
    assert await status(api, volume) == "available"
    assert (await api("GET", "/attachments")).body["attachments"] == []


async def test_extend_and_delete_mind_the_export(api: Api, table: Table) -> None:
    volume = (await api.volume())["id"]
    attachment = await reserved(api, volume)
    await connected(api, attachment, "far")
    await api("POST", f"/attachments/{attachment}/action", json={"os-complete": None}, headers=SERVICE)
    assert (await api.act(volume, "os-extend", {"new_size": 2})).status == 202
    await api.settled()
    assert (await api("GET", f"/volumes/{volume}")).body["volume"]["size"] == 2
    assert (await api("DELETE", f"/volumes/{volume}")).status == 400
    await api("DELETE", f"/attachments/{attachment}", headers=SERVICE)
    assert (await api("DELETE", f"/volumes/{volume}")).status == 202
    await api.settled()
    assert table.volumes == {}
