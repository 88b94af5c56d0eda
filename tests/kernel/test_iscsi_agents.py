"""Two agents of one guest, by their own control APIs: exports, paths, and everything that can go wrong between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.diagnostics import live
from agent.host import lio, scsi, sysfs
from agent.privsep import lio as verbs
from agent.wire.client import AgentClient
from agent.wire.jobs import (
    AttachmentResize,
    Connection,
    LuksFormat,
    Portal,
    WireSecret,
)
from tests.integration.agent.agent_process import Site, finish, persist
from tests.kernel.support import initiator
from tests.kernel.support.pair import CHAP, MIB, SIZE, Pair, Transport, good, pair_of
from tests.kernel.support.writing import writing

SECOND = "10.9.9.1"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with initiator.ready(SECOND, multipath=True):
        made = Site()
        yield made
        made.remove()


async def two_paths(connection: Connection) -> None:
    """A second portal that was slow joins the map a moment later."""

    def both() -> bool:
        over = scsi.multipath_map(connection.identity)
        return over is not None and len(over.below) == 2

    await asyncio.to_thread(initiator.until, both, 120, "the map has not both paths")


def target_of(connection: Connection) -> tuple[scsi.Session, ...]:
    return scsi.sessions(connection.target)


@pytest.fixture(scope="module")
def hosts(site: Site) -> Iterator[Pair]:
    table = f'[targets.lio]\nportals = ["127.0.0.1", "{SECOND}"]'
    with pair_of(site, Transport("iscsi", initiator.iqn(), table, verbs.lio_remove, "chap")) as made:
        yield made


@pytest.fixture
async def pair(hosts: Pair) -> Pair:
    return await hosts.awake()


async def test_two_paths_written_read_and_grown(pair: Pair) -> None:
    async with pair.attached() as (volume, connection, device):
        over = scsi.multipath_map(connection.identity)
        assert over is not None
        assert device["device"] == f"/dev/{over.name}"
        await two_paths(connection)
        content = os.urandom(MIB)
        initiator.write(Path(device["device"]), content)
        with pair.file(volume).open("rb") as file:
            assert file.read(MIB) == content
        async with pair.away.client() as told, pair.home.client() as home:
            (row,) = await told.attachments()
            assert (row.state, row.protocol, len(row.paths)) == ("attached", "iscsi", 2)
            (export,) = await home.exports()
            assert (export.state, export.connected, export.mode) == ("exported", True, "rw")
            assert await pair.grow(volume, 2 * SIZE) == {row.attachment_id: 2 * SIZE}
        assert initiator.size(Path(device["device"])) == 2 * SIZE
        assert initiator.read(Path(device["device"]), MIB) == content


async def test_encrypted_over_two_paths(pair: Pair) -> None:
    pair.encryption = LuksFormat()
    async with pair.attached() as (volume, _, device):
        assert device["device"].startswith("/dev/mapper/brickyard-")
        assert initiator.size(Path(device["device"])) == SIZE
        content = os.urandom(MIB)
        initiator.write(Path(device["device"]), content)
        with pair.file(volume).open("rb") as file:
            assert content not in file.read(16 * MIB)
        await pair.grow(volume, 2 * SIZE)
        assert initiator.size(Path(device["device"])) == 2 * SIZE
        assert initiator.read(Path(device["device"]), MIB) == content


async def test_read_only(pair: Pair) -> None:
    async with pair.attached(mode="ro") as (_, connection, _device):
        (first, *_) = target_of(connection)
        disk = first.disk(0)
        assert disk is not None
        assert sysfs.text(sysfs.SYS / "block" / disk.name / "ro") == "1"


async def test_a_path_is_lost_and_comes_back(pair: Pair) -> None:
    """Whoever writes all the time sees nothing of it, nor of the volume's growth."""
    async with pair.attached() as (volume, connection, device), writing(Path(device["device"])) as writer:
        await two_paths(connection)
        follow = AttachmentResize(volume_id=volume, size_bytes=2 * SIZE)
        await pair.grow(volume, 2 * SIZE)
        await writer.goes_on()
        initiator.sh(f"ip addr del {SECOND}/24 dev brickyard0")
        try:
            down = lambda: any(not one.healthy for one in target_of(connection))  # noqa: E731
            await asyncio.to_thread(initiator.until, down, 240, "the session is not seen as lost")
            await writer.goes_on()
            async with pair.away.client() as told:
                refused = await finish(told, pair.key("follow"), 1, follow)
            assert refused.error is not None
            assert refused.error.code == "attachment.path-down"
            assert f"{SECOND}:3260" in refused.error.message
        finally:
            initiator.sh(f"ip addr add {SECOND}/24 dev brickyard0")
        up = lambda: all(one.healthy for one in target_of(connection)) and len(target_of(connection)) == 2  # noqa: E731
        await asyncio.to_thread(initiator.until, up, 240, "the session does not come back")
        await writer.goes_on()


async def test_a_portal_that_was_down_at_the_attach_joins_also_after_a_restart(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    initiator.sh(f"ip addr del {SECOND}/24 dev brickyard0")
    try:
        device = good(await pair.attach(volume, connection, attachment))["attached"][0]
        await pair.away.kill()
        assert len(target_of(connection)) == 1
        await pair.away.start()
        async with pair.away.client() as told:
            await until_issue(told, "attachment.path", f"{SECOND}:3260")
    finally:
        initiator.sh(f"ip addr add {SECOND}/24 dev brickyard0")
    await two_paths(connection)
    async with pair.away.client() as told:
        await until_issue(told, "attachment.path", "", there=False)
    initiator.write(Path(device["device"]), os.urandom(4096))
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_a_volume_that_has_become_smaller_is_told(pair: Pair) -> None:
    async with pair.attached() as (volume, connection, _):
        await two_paths(connection)
        loop = initiator.sh(f"losetup -n -O NAME -j {pair.file(volume)}").strip()
        try:
            initiator.sh(f"truncate -s {SIZE // 2} {pair.file(volume)} && losetup -c {loop}")
            await pair.away.kill()
            await pair.away.start()  # asks every device anew
            async with pair.away.client() as told:
                await until_issue(told, "attachment.changed", "promised are")
        finally:
            initiator.sh(f"truncate -s {SIZE} {pair.file(volume)} && losetup -c {loop}")


async def until_issue(told: AgentClient, code: str, text: str, *, there: bool = True) -> None:
    """Wait until an issue of this code that says this is there, or is not."""
    async with asyncio.timeout(180):
        while any(one.code == code and text in one.message for one in await told.issues()) != there:
            await asyncio.sleep(0.5)


async def test_a_dead_portal_does_not_keep_the_others_away(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    dead = Portal(address="10.9.9.99", port=3260)
    connection = connection.model_copy(update={"portals": (dead, *connection.portals)})
    device = good(await pair.attach(volume, connection, attachment))["attached"][0]
    await two_paths(connection)
    initiator.write(Path(device["device"]), os.urandom(4096))
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_another_volume_at_the_address_is_refused(pair: Pair) -> None:
    one, two, first, second = await pair.made(), await pair.made(), new_id(), new_id()
    wanted = (await pair.export(one, first))[first]
    other = (await pair.export(two, second))[second]
    swapped = wanted.model_copy(update={"target": other.target, "username": other.username})
    status = await pair.attach(one, swapped, first)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "attachment.mismatch"
    assert not scsi.sessions()
    good(await pair.detach(one))
    await pair.delete(one)
    await pair.delete(two)


async def test_an_attachment_whose_id_begins_as_a_number_does_gets_in(pair: Pair) -> None:
    volume, attachment = await pair.made(), f"0b{new_id()[2:]}"
    connection = (await pair.export(volume, attachment))[attachment]
    good(await pair.attach(volume, connection, attachment))
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_a_wrong_chap_secret_is_refused_at_once(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    async with pair.away.client() as told:
        args = pair.attach_args(volume, connection, attachment)
        bad = WireSecret.of("passphrase", b"wrongwrongwrong12345")
        status = await finish(told, pair.key("attach"), 1, args, chap=bad)
    assert status.error is not None
    assert status.error.code == "iscsi.login-refused"
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_an_attach_again_that_fails_takes_nothing_away(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    one = connection.model_copy(update={"portals": connection.portals[:1]})
    device = Path(good(await pair.attach(volume, one, attachment))["attached"][0]["device"])
    async with pair.away.client() as told:
        args = pair.attach_args(volume, connection, attachment)
        bad = WireSecret.of("passphrase", b"wrongwrongwrong12345")
        status = await finish(told, pair.key("attach"), 1, args, chap=bad)
    assert (status.error and status.error.code) == "iscsi.login-refused"
    assert [session.healthy for session in target_of(connection)] == [True]
    content = os.urandom(4096)
    initiator.write(device, content)
    assert initiator.read(device, 4096) == content
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_a_session_of_somebody_else_is_left_alone(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    portal = connection.portals[0]
    connection = connection.model_copy(update={"portals": (portal,)})
    node = f"iscsiadm -m node -T {connection.target} -p {portal.address}:{portal.port}"
    initiator.sh(f"{node} -o new")
    for key, value in (("authmethod", "CHAP"), ("username", connection.username), ("password", CHAP.value().decode())):
        initiator.sh(f"{node} -o update -n node.session.auth.{key} -v {value}")
    initiator.sh(f"{node} --login")
    try:
        await asyncio.to_thread(initiator.until, lambda: bool(target_of(connection)[0].disks), 60, "no disk came")
        for status in (await pair.attach(volume, connection, attachment), await pair.detach(volume)):
            assert status.error is not None
            assert "is used by somebody else on this host" in status.error.message
        (session,) = target_of(connection)
        assert session.healthy
        assert len(session.disks) == 1
    finally:
        initiator.sh(f"{node} --logout && {node} -o delete")
    good(await pair.detach(volume))
    await pair.delete(volume)


@pytest.mark.parametrize("encryption", [None, LuksFormat()], ids=["clear", "encrypted"])
async def test_detach_when_the_target_is_gone(pair: Pair, encryption: LuksFormat | None) -> None:
    pair.encryption = encryption
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    good(await pair.attach(volume, connection, attachment))
    await pair.export(volume)
    lost = lambda: not any(one.healthy for one in target_of(connection))  # noqa: E731
    await asyncio.to_thread(initiator.until, lost, 240, "the sessions go on without a target")
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_a_device_in_use_stays_and_names_its_user(pair: Pair) -> None:
    async with pair.attached() as (volume, _, device):
        with initiator.mapped(Path(device["device"]).name):
            status = await pair.detach(volume)
            assert status.error is not None
            assert "brickyard-test" in status.error.message
            initiator.write(Path(device["device"]), os.urandom(4096))


async def test_exports_come_back_after_a_reboot_and_io_goes_on(pair: Pair, tmp_path: Path) -> None:
    async with pair.attached() as (_, connection, device):
        content = os.urandom(MIB)
        initiator.write(Path(device["device"]), content)
        await pair.power_lost()
        assert not lio.targets()
        async with pair.booted(tmp_path):
            up = lambda: all(one.healthy for one in target_of(connection))  # noqa: E731
            await asyncio.to_thread(initiator.until, up, 240, "the initiator does not come back")
            assert await asyncio.to_thread(initiator.read, Path(device["device"]), MIB) == content


@pytest.mark.parametrize("point", ["agent.export.decided", "agent.export.applied"])
async def test_killed_while_exporting(pair: Pair, point: str) -> None:
    volume, attachment = await pair.made(), new_id()
    await pair.home.kill()
    args = pair.export_args(volume, attachment)
    fault = f"testing.fault={point}"
    result = good(await persist(pair.home, pair.key("export"), args, [fault], **{f"chap.{attachment}": CHAP}))
    connection = Connection.model_validate(result["exported"][0]["connection"])
    good(await pair.attach(volume, connection, attachment))
    good(await pair.detach(volume))
    await pair.home.kill()
    good(await persist(pair.home, pair.key("export"), pair.export_args(volume), [fault]))
    await pair.delete(volume)


@pytest.mark.parametrize("point", ["agent.attachment.decided", "agent.attachment.attached"])
async def test_killed_while_attaching(pair: Pair, point: str) -> None:
    pair.encryption = LuksFormat()
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    result = await pair.killed(volume, connection, attachment, point)
    assert result["attached"][0]["device"] == f"/dev/mapper/brickyard-{attachment}"
    await pair.killed_detaching(volume)
    await pair.delete(volume)


async def test_several_at_once(pair: Pair) -> None:
    volumes = [await pair.made() for _ in range(4)]
    attachments = [new_id() for _ in volumes]
    exported = await asyncio.gather(*(pair.export(v, a) for v, a in zip(volumes, attachments, strict=True)))
    work = [
        pair.attach(volume, connections[attachment], attachment)
        for volume, attachment, connections in zip(volumes, attachments, exported, strict=True)
    ]
    devices = [good(status)["attached"][0]["device"] for status in await asyncio.gather(*work)]
    assert len(set(devices)) == 4
    for volume, device in zip(volumes, devices, strict=True):
        content = os.urandom(4096)
        initiator.write(Path(device), content)
        with pair.file(volume).open("rb") as file:
            assert file.read(4096) == content
    for status in await asyncio.gather(*(pair.detach(volume) for volume in volumes)):
        good(status)
    for volume in volumes:
        await pair.delete(volume)


async def test_the_whole_way_is_explained(pair: Pair) -> None:
    from agent.diagnostics.place import Place

    async with pair.attached() as (volume, connection, device):
        told = []
        for agent in (pair.home, pair.away):
            place = Place(
                agent.name, agent.state, agent.state / "spool", "nobody", Path("/none"), {"files": agent.volumes}
            )
            told.append("\n".join(live.lines(live.explain(place, volume))))
        home, away = told
        assert f"target {connection.target}  (ready)" in home
        assert f"consumer {pair.transport.initiator}  (connected, rw)" in home
        assert "session" in away
        assert f"path /dev/{Path(scsi.sessions()[0].disks[0].name).name}" in away
        assert device["device"] in away
