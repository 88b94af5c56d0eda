"""Two agents of one guest and NVMe/TCP between them: exports, paths, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.diagnostics import live
from agent.host import nvme, nvmet
from agent.privsep import block, client, start
from agent.privsep import nvmet as verbs
from agent.wire.jobs import Connection, LuksFormat, Portal
from tests.integration.agent.agent_process import Site, finish, persist
from tests.kernel.support import fabric, initiator
from tests.kernel.support.pair import MIB, SIZE, Pair, Transport, good, pair_of

SECOND, STANDBY = "10.9.9.1", "fd09::1"
TABLE = f"""[targets.nvmet]
portals = ["127.0.0.1", "{SECOND}"]
standby = ["{STANDBY}"]
"""
PATHS = 3


@pytest.fixture(scope="module")
def hosts() -> Iterator[Pair]:
    with fabric.ready(f"{SECOND}/24", f"{STANDBY}/64"):
        site = Site()
        name = nvme.host_nqn()
        assert name is not None
        with pair_of(site, Transport("nvme-tcp", name, TABLE, verbs.nvmet_remove)) as made:
            yield made
        site.remove()


@pytest.fixture
async def pair(hosts: Pair) -> Pair:
    return await hosts.awake()


async def all_paths(connection: Connection, count: int = PATHS) -> None:
    """A portal that was slow joins a moment later."""
    await asyncio.to_thread(
        initiator.until, lambda: fabric.live(connection.target) == count, 240, "not all paths are live"
    )


async def test_all_paths_written_read_and_grown(pair: Pair) -> None:
    async with pair.attached() as (volume, connection, device):
        assert connection.identity == f"uuid.{volume}"
        await all_paths(connection)
        assert [fabric.ana(connection.target, one) for one in ("127.0.0.1", SECOND, STANDBY)] == [
            "optimized",
            "optimized",
            "non-optimized",
        ]
        path = Path(device["device"])
        content = os.urandom(MIB)
        initiator.write(path, content)
        with pair.file(volume).open("rb") as file:
            assert file.read(MIB) == content
        async with pair.away.client() as told, pair.home.client() as home:
            (row,) = await told.attachments()
            assert (row.state, row.protocol, len(row.paths)) == ("attached", "nvme-tcp", PATHS)
            (export,) = await home.exports()
            assert (export.state, export.target, export.connected) == ("exported", connection.target, None)
            assert await pair.grow(volume, 2 * SIZE) == {row.attachment_id: 2 * SIZE}
        assert initiator.size(path) == 2 * SIZE
        assert initiator.read(path, MIB) == content


async def test_encrypted(pair: Pair) -> None:
    pair.encryption = LuksFormat()
    async with pair.attached() as (volume, _, device):
        path = Path(device["device"])
        assert device["device"].startswith("/dev/mapper/brickyard-")
        assert initiator.size(path) == SIZE
        content = os.urandom(MIB)
        initiator.write(path, content)
        with pair.file(volume).open("rb") as file:
            assert content not in file.read(16 * MIB)
        await pair.grow(volume, 2 * SIZE)
        assert initiator.size(path) == 2 * SIZE
        assert initiator.read(path, MIB) == content


async def test_a_path_is_lost_and_comes_back(pair: Pair) -> None:
    async with pair.attached() as (_, connection, device):
        await all_paths(connection)
        content = os.urandom(MIB)
        fabric.drop(f"{SECOND}/24")
        try:
            down = lambda: fabric.live(connection.target) < PATHS  # noqa: E731
            await asyncio.to_thread(initiator.until, down, 240, "the path is not seen as lost")
            await asyncio.to_thread(initiator.write, Path(device["device"]), content)
        finally:
            fabric.add(f"{SECOND}/24")
        await all_paths(connection)
        assert await asyncio.to_thread(initiator.read, Path(device["device"]), MIB) == content


async def test_a_dead_portal_keeps_nobody_waiting_and_joins_when_it_answers(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    fabric.drop(f"{SECOND}/24")
    dead = Portal(address="10.9.9.99", port=4420)
    connection = connection.model_copy(update={"portals": (dead, *connection.portals)})
    try:
        device = good(await pair.attach(volume, connection, attachment))["attached"][0]
        initiator.write(Path(device["device"]), os.urandom(4096))
    finally:
        fabric.add(f"{SECOND}/24")
    await all_paths(connection)
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_a_portal_that_was_down_at_the_attach_joins_also_after_a_restart(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    fabric.drop(f"{SECOND}/24")
    try:
        good(await pair.attach(volume, connection, attachment))
        await pair.away.kill()
        assert fabric.live(connection.target) == PATHS - 1
        await pair.away.start()
    finally:
        fabric.add(f"{SECOND}/24")
    await all_paths(connection)
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_without_any_portal_nothing_is_left(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    dead = tuple(Portal(address=address, port=4499) for address in ("127.0.0.1", SECOND))
    status = await pair.attach(volume, connection.model_copy(update={"portals": dead}), attachment)
    assert status.error is not None
    assert status.error.code == "attachment.no-path"
    assert "nothing listens there" in status.error.message
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_another_volume_at_the_address_is_refused(pair: Pair) -> None:
    one, two, first, second = await pair.made(), await pair.made(), new_id(), new_id()
    wanted = (await pair.export(one, first))[first]
    other = (await pair.export(two, second))[second]
    status = await pair.attach(one, wanted.model_copy(update={"target": other.target}), first)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "attachment.mismatch"
    assert nvme.subsystem(other.target) is None
    good(await pair.detach(one))
    await pair.delete(one)
    await pair.delete(two)


async def test_another_volume_that_is_in_use_is_not_harmed_by_a_refusal(pair: Pair) -> None:
    other = await pair.made()
    async with pair.attached() as (_, connection, device):
        attachment = new_id()
        wrong = connection.model_copy(update={"identity": f"uuid.{other}"})
        status = await pair.attach(other, wrong, attachment)
        assert status.error is not None
        assert status.error.code == "attachment.mismatch"
        content = os.urandom(4096)
        initiator.write(Path(device["device"]), content)
        assert initiator.read(Path(device["device"]), 4096) == content
        good(await pair.detach(other))
    await pair.delete(other)


async def test_a_stranger_is_not_let_in(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    options = f"transport=tcp,nqn={connection.target},traddr=127.0.0.1,trsvcid=4420"
    stranger = f"{options},hostnqn=nqn.2026-01.org.example:stranger,hostid={new_id()}"
    with pytest.raises(OSError, match="Input/output"):
        Path("/dev/nvme-fabrics").write_text(stranger)
    await pair.delete(volume)


async def test_one_consumer_is_cut_off_and_the_other_goes_on(pair: Pair) -> None:
    async with pair.attached() as (volume, connection, device):
        await all_paths(connection)
        (mine,) = nvmet.subsystems(volume)
        start.start_direct(roots=[pair.home.volumes])
        try:
            (loop,) = client.invoke(block.loop_list, "export")
            portals = [("127.0.0.1", 4420, True), (SECOND, 4420, True), (STANDBY, 4420, False)]
            names = [pair.transport.initiator, "nqn.2026-01.org.example:other"]
            told = (volume, loop["device"], loop["diskseq"], portals)
            both = client.invoke(verbs.nvmet_apply, *told, names)
            assert len(nvmet.subsystems(volume)) == 2
            assert both["targets"][pair.transport.initiator] == mine.target
            client.invoke(verbs.nvmet_apply, *told, names[:1])
        finally:
            client.set_mode("none")
        assert nvmet.subsystems(volume) == (mine,)
        assert fabric.live(connection.target) == PATHS
        initiator.write(Path(device["device"]), os.urandom(4096))


async def test_read_only_is_refused_where_it_can_not_be_kept(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    async with pair.home.client() as told:
        status = await finish(told, pair.key("export"), 1, pair.export_args(volume, attachment, mode="ro"))
    assert status.error is not None
    assert status.error.code == "target.always-writable"
    assert not nvmet.subsystems()
    await pair.delete(volume)


@pytest.mark.parametrize("encryption", [None, LuksFormat()], ids=["clear", "encrypted"])
async def test_detach_when_the_target_is_gone(pair: Pair, encryption: LuksFormat | None) -> None:
    pair.encryption = encryption
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    good(await pair.attach(volume, connection, attachment))
    await all_paths(connection)
    await pair.export(volume)
    lost = lambda: fabric.live(connection.target) == 0  # noqa: E731
    await asyncio.to_thread(initiator.until, lost, 240, "the controllers go on without a target")
    good(await pair.detach(volume))
    assert nvme.subsystem(connection.target) is None
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
        await all_paths(connection)
        await pair.power_lost()
        assert not nvmet.subsystems()
        lost = lambda: fabric.live(connection.target) == 0  # noqa: E731
        await asyncio.to_thread(initiator.until, lost, 240, "the controllers go on without a target")
        waiting = asyncio.create_task(asyncio.to_thread(initiator.read, Path(device["device"]), MIB))
        async with pair.booted(tmp_path):
            await all_paths(connection)
            assert await waiting == content


@pytest.mark.parametrize("point", ["agent.export.decided", "agent.export.applied"])
async def test_killed_while_exporting(pair: Pair, point: str) -> None:
    volume, attachment = await pair.made(), new_id()
    await pair.home.kill()
    fault = f"testing.fault={point}"
    result = good(await persist(pair.home, pair.key("export"), pair.export_args(volume, attachment), [fault]))
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
        await all_paths(connection)
        told = []
        for agent in (pair.home, pair.away):
            place = Place(
                agent.name, agent.state, agent.state / "spool", "nobody", Path("/none"), {"files": agent.volumes}
            )
            told.append("\n".join(live.lines(live.explain(place, volume))))
        home, away = told
        assert f"target {connection.target}  (ready)" in home
        assert f"consumer {pair.transport.initiator}" in home
        assert f"portal [{STANDBY}]:4420" in home
        assert f"[{STANDBY}]:4420, live" in away
        assert device["device"] in away
