"""A mirrored volume: two replicas of one host by NVMe/TCP, one mirror on the other, and what happens when legs fail."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import md, nvme, udev
from agent.privsep import client, nvmet, start
from agent.privsep import md as verbs
from agent.privsep.errors import DeviceHeld
from agent.wire.client import AgentClient
from agent.wire.jobs import AttachmentResize, Connection, JobStatus, VolumeExtend, request_for
from tests.integration.agent.agent_process import Site, finish
from tests.kernel.support import fabric, initiator
from tests.kernel.support.pair import MIB, SIZE, Pair, Transport, good, pair_of

LEAST = SIZE - 8 * MIB  # superblock and bitmap take their part of each leg
Replica = tuple[str, Connection]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Pair]:
    initiator.sh("modprobe raid1")
    with fabric.ready():
        site = Site()
        name = nvme.host_nqn()
        assert name is not None
        with pair_of(
            site, Transport("nvme-tcp", name, '[targets.nvmet]\nportals = ["127.0.0.1"]', nvmet.nvmet_remove)
        ) as made:
            yield made
        site.remove()


@pytest.fixture
async def pair(hosts: Pair) -> Pair:
    return await hosts.awake()


async def replica(pair: Pair) -> Replica:
    """A volume of the first host, exported."""
    volume, attachment = await pair.made(), new_id()
    return volume, (await pair.export(volume, attachment))[attachment]


def mirror(volume: str, *legs: Replica) -> Connection:
    return Connection(
        protocol="nvme-raid", target=volume.replace("-", ""), identity=f"uuid.{volume}", size_bytes=LEAST,
        replicas=tuple(connection for _, connection in legs),
    )  # fmt: skip


async def attach(pair: Pair, volume: str, attachment: str, *legs: Replica) -> JobStatus:
    return await pair.attach(volume, mirror(volume, *legs), attachment)


def state(*legs: Replica) -> tuple[md.Array | None, list[bool]]:
    """The mirror, and of each leg whether it is a good part of it."""
    names = []
    for _, connection in legs:
        found = nvme.subsystem(connection.target)
        names.append(found.namespaces[0].name if found is not None and found.namespaces else "")
    array = md.over(set(names) - {""})
    members = [array.member(name) if array is not None else None for name in names]
    return array, [member is not None and member.good for member in members]


async def whole(*legs: Replica) -> None:
    await asyncio.to_thread(initiator.until, lambda: all(state(*legs)[1]), 300, "the mirror is not whole")


def inside(pair: Pair, leg: Replica, content: bytes) -> bool:
    return content in pair.file(leg[0]).read_bytes()


async def test_both_replicas_hold_what_is_written_and_it_is_there_again(pair: Pair) -> None:
    one, two, volume, attachment = await replica(pair), await replica(pair), new_id(), new_id()
    device = Path(good(await attach(pair, volume, attachment, one, two))["attached"][0]["device"])
    assert device.name.startswith("md")
    content = os.urandom(MIB)
    initiator.write(device, content, 16 * MIB)
    good(await pair.detach(volume))
    assert not md.arrays()
    assert not nvme.subsystems()
    assert inside(pair, one, content)
    assert inside(pair, two, content)
    device = Path(good(await attach(pair, volume, new_id(), two, one))["attached"][0]["device"])
    assert initiator.read(device, MIB, 16 * MIB) == content
    async with pair.away.client() as told, pair.home.client() as home:
        for leg in (one, two):
            extend = VolumeExtend(backend="files", volume_id=leg[0], size_bytes=2 * SIZE)
            good(await finish(home, pair.key("extend"), 1, extend))
        follow = AttachmentResize(volume_id=volume, size_bytes=LEAST + SIZE)
        good(await finish(told, pair.key("follow"), 1, follow))
    assert initiator.size(device) >= LEAST + SIZE
    assert initiator.read(device, MIB, 16 * MIB) == content
    good(await pair.detach(volume))
    for leg in (one, two):
        await pair.delete(leg[0])


async def test_a_lost_replica_is_told_taken_back_and_replaced(pair: Pair) -> None:
    one, two, volume, attachment = await replica(pair), await replica(pair), new_id(), new_id()
    device = Path(good(await attach(pair, volume, attachment, one, two))["attached"][0]["device"])
    await pair.export(two[0])
    content = os.urandom(MIB)
    await asyncio.to_thread(initiator.write, device, content, 16 * MIB)
    await asyncio.to_thread(initiator.until, lambda: state(one, two)[1] == [True, False], 300, "the loss is not seen")
    async with pair.away.client() as told:
        for _ in range(1200):
            issues = [one for one in await told.issues() if one.code == "attachment.replica"]
            if issues:
                break
            await asyncio.sleep(0.5)
        assert issues[0].resource == attachment
        assert two[1].target in issues[0].message
    back = (await pair.export(two[0], attachment))[attachment]
    assert back.target == two[1].target
    await whole(one, two)
    third = await replica(pair)
    await pair.export(two[0])
    good(await attach(pair, volume, attachment, one, third))
    await whole(one, third)
    assert nvme.subsystem(two[1].target) is None
    assert await asyncio.to_thread(initiator.read, device, MIB, 16 * MIB) == content
    good(await pair.detach(volume))
    assert inside(pair, third, content)
    for leg in (one, two, third):
        await pair.delete(leg[0])


async def test_no_old_data_from_a_replica_that_was_left_behind(pair: Pair) -> None:
    one, two, volume = await replica(pair), await replica(pair), new_id()
    status = await attach(pair, volume, new_id(), one, (two[0], gone(two[1])))
    assert status.error is not None
    assert status.error.code == "attachment.replica-missing"
    assert not md.arrays()
    good(await pair.detach(volume))
    device = Path(good(await attach(pair, volume, new_id(), one, two))["attached"][0]["device"])
    await pair.export(two[0])
    content = os.urandom(MIB)
    await asyncio.to_thread(initiator.write, device, content, 16 * MIB)
    await asyncio.to_thread(initiator.until, lambda: state(one, two)[1] == [True, False], 300, "the loss is not seen")
    good(await pair.detach(volume))
    two = (two[0], (await pair.export(two[0], new_id())).popitem()[1])
    status = await attach(pair, volume, new_id(), (one[0], gone(one[1])), two)
    assert status.error is not None
    assert status.error.code == "attachment.replica-missing"
    good(await pair.detach(volume))
    # The other way round it is certain: who is here knows that the one which is not was left behind.
    device = Path(good(await attach(pair, volume, new_id(), one, (two[0], gone(two[1]))))["attached"][0]["device"])
    assert await asyncio.to_thread(initiator.read, device, MIB, 16 * MIB) == content
    good(await pair.detach(volume))
    for leg in (one, two):
        await pair.delete(leg[0])


async def test_what_is_no_replica_is_not_overwritten(pair: Pair) -> None:
    one, two, volume = await replica(pair), await replica(pair), new_id()
    content = os.urandom(MIB)
    with pair.file(two[0]).open("r+b") as file:
        file.write(content)
    status = await attach(pair, volume, new_id(), one, two)
    assert status.error is not None
    assert "not blank" in status.error.message
    assert pair.file(two[0]).read_bytes()[:MIB] == content
    good(await pair.detach(volume))
    for leg in (one, two):
        await pair.delete(leg[0])


@pytest.mark.parametrize("way", ["paths", "disks"])
async def test_detach_when_no_replica_is_left(pair: Pair, way: str) -> None:
    """Whether the kernel still tries to reach them, or shows none of their disks any more."""
    legs, volume = (await replica(pair), await replica(pair)), new_id()
    device = Path(good(await attach(pair, volume, new_id(), *legs))["attached"][0]["device"])
    initiator.write(device, os.urandom(MIB))
    await lost(pair, *legs)
    if way == "disks":
        for _, connection in legs:
            initiator.sh(f"nvme disconnect -n {connection.target}")
        await asyncio.to_thread(initiator.until, lambda: not nvme.subsystems(), 60, "the disks do not go")
    good(await pair.detach(volume))
    # What the kernel's own rules have stopped is shown, without a leg, for a moment more.
    await asyncio.to_thread(initiator.until, lambda: not md.arrays(), 60, "the mirror is still there")
    assert not nvme.subsystems()
    for leg in legs:
        await pair.delete(leg[0])


async def test_its_replicas_came_back_as_new_disks(pair: Pair) -> None:
    legs, volume, attachment = [await replica(pair), await replica(pair)], new_id(), new_id()
    device = Path(good(await attach(pair, volume, attachment, *legs))["attached"][0]["device"])
    content = os.urandom(MIB)
    initiator.write(device, content)
    for _, connection in legs:
        initiator.sh(f"nvme disconnect -n {connection.target}")
    await asyncio.to_thread(initiator.until, lambda: not nvme.subsystems(), 60, "the disks do not go")
    async with pair.away.client() as told:
        assert await state_of(told, attachment) == "missing"
    device = Path(good(await attach(pair, volume, attachment, *legs))["attached"][0]["device"])
    assert initiator.read(device, MIB) == content
    await whole(*legs)
    good(await pair.detach(volume))
    for leg in legs:
        await pair.delete(leg[0])


async def test_a_leg_comes_back_to_a_mirror_that_nobody_wrote_to_yet(pair: Pair) -> None:
    """Rules of udev that are quicker than we are start it so, and the kernel would wait for a write."""
    legs, volume, attachment = [await replica(pair), await replica(pair)], new_id(), new_id()
    good(await attach(pair, volume, attachment, *legs))
    array, _ = state(*legs)
    assert array is not None
    leg, name = array.members[0].name, array.name

    def held() -> bool:
        """Refused while something of the mirror goes on."""
        initiator.sh(f"echo read-auto > /sys/block/{name}/md/array_state", check=False)
        now, _ = state(*legs)
        return now is not None and now.on_hold

    await asyncio.to_thread(initiator.until, held, 60, "it is not on hold")
    good(await attach(pair, volume, attachment, *legs))
    array, _ = state(*legs)
    assert array is not None
    assert not array.on_hold, "whoever added its legs, it begins"
    initiator.sh(f"mdadm /dev/{array.name} --fail /dev/{leg}")
    initiator.sh(f"mdadm /dev/{array.name} --remove /dev/{leg}")
    await asyncio.to_thread(initiator.until, held, 60, "it is not on hold")
    good(await attach(pair, volume, attachment, *legs))
    await whole(*legs)
    good(await pair.detach(volume))
    for one in legs:
        await pair.delete(one[0])


async def lost(pair: Pair, *legs: Replica) -> None:
    """Their host takes them back, and no path to them is left."""
    for volume, _ in legs:
        await pair.export(volume)
    down = lambda: not any(one.live for one in nvme.subsystems())  # noqa: E731
    await asyncio.to_thread(initiator.until, down, 120, "the paths are still up")


@pytest.mark.parametrize("point", ["agent.attachment.decided", "agent.attachment.attached"])
async def test_killed_while_attaching_and_detaching(pair: Pair, point: str) -> None:
    one, two, volume, attachment = await replica(pair), await replica(pair), new_id(), new_id()
    result = await pair.killed(volume, mirror(volume, one, two), attachment, point)
    device, content = Path(result["attached"][0]["device"]), os.urandom(MIB)
    initiator.write(device, content)
    assert state(one, two)[1] == [True, True]
    await pair.killed_detaching(volume)
    assert not md.arrays()
    assert not nvme.subsystems()
    assert inside(pair, one, content)
    assert inside(pair, two, content)
    for leg in (one, two):
        await pair.delete(leg[0])


async def test_killed_while_its_legs_come(pair: Pair) -> None:
    """Between the first disk and the mirror over both, wherever that is."""
    one, two, volume, attachment = await replica(pair), await replica(pair), new_id(), new_id()
    args = pair.attach_args(volume, mirror(volume, one, two), attachment)
    key = pair.key("attach")
    async with pair.away.client() as told, udev.subscribed() as events:
        await told.post_job(request_for(key, 1, args, {}), wait_s=0)
        assert await events.wait(lambda event: event.name.startswith("nvme"), 120) is not None
        await pair.away.kill()
    await pair.away.start()
    async with pair.away.client() as told:
        device = Path(good(await finish(told, key, 1, args))["attached"][0]["device"])
    assert state(one, two)[1] == [True, True]
    content = os.urandom(MIB)
    initiator.write(device, content)
    good(await pair.detach(volume))
    assert inside(pair, one, content)
    assert inside(pair, two, content)
    for leg in (one, two):
        await pair.delete(leg[0])


async def test_the_host_of_one_replica_restarts_and_the_other_serves_meanwhile(pair: Pair, tmp_path: Path) -> None:
    one, two, volume = await replica(pair), await replica(pair), new_id()
    device = Path(good(await attach(pair, volume, new_id(), one, two))["attached"][0]["device"])
    before, meanwhile = os.urandom(MIB), os.urandom(MIB)
    initiator.write(device, before)
    await pair.power_lost(two[0])
    await asyncio.to_thread(initiator.write, device, meanwhile, 16 * MIB)
    await asyncio.to_thread(initiator.until, lambda: state(one, two)[1] == [True, False], 300, "the loss is not seen")
    assert await asyncio.to_thread(initiator.read, device, MIB) == before
    assert not inside(pair, two, meanwhile)
    await last_good_leg_stays(pair, one)
    assert await asyncio.to_thread(initiator.read, device, MIB, 16 * MIB) == meanwhile
    async with pair.booted(tmp_path):
        await whole(one, two)
        good(await pair.detach(volume))
        for leg in (one, two):
            assert inside(pair, leg, before)
            assert inside(pair, leg, meanwhile)
            await pair.delete(leg[0])


async def last_good_leg_stays(pair: Pair, leg: Replica) -> None:
    """Whoever asks for it."""
    array, _ = state(leg)
    found = nvme.subsystem(leg[1].target)
    assert array is not None
    assert found is not None
    start.start_direct(roots=[pair.home.volumes])
    try:
        with pytest.raises(DeviceHeld, match="last good leg"):
            await asyncio.to_thread(client.invoke, verbs.md_drop, array.name, found.namespaces[0].name)
    finally:
        client.set_mode("none")


async def test_the_host_of_all_its_replicas_restarts_and_an_attach_again_makes_it_whole(
    pair: Pair, tmp_path: Path
) -> None:
    """What is read meanwhile fails, since nobody has it. Then the kernel gives what was written, and takes nothing."""
    one, two, volume, attachment = await replica(pair), await replica(pair), new_id(), new_id()
    device = Path(good(await attach(pair, volume, attachment, one, two))["attached"][0]["device"])
    content = os.urandom(MIB)
    initiator.write(device, content)
    await pair.power_lost()
    async with pair.away.client() as told, asyncio.timeout(600):
        with pytest.raises(OSError, match="Input/output"):
            await asyncio.to_thread(initiator.read, device, MIB)
        while not await replica_issues(told):
            await asyncio.sleep(0.5)
        assert await state_of(told, attachment) == "attached"
        async with pair.booted(tmp_path):
            await whole(one, two)
            assert await asyncio.to_thread(initiator.read, device, MIB) == content
            with pytest.raises(OSError, match="Input/output"):
                await asyncio.to_thread(initiator.write, device, content, 8 * MIB)
            while not any("refuses every write" in each for each in await replica_issues(told)):
                await asyncio.sleep(0.5)
            good(await pair.detach(volume))
            device = Path(good(await attach(pair, volume, attachment, one, two))["attached"][0]["device"])
            assert await asyncio.to_thread(initiator.read, device, MIB) == content
            await asyncio.to_thread(initiator.write, device, content, 8 * MIB)
            while await replica_issues(told):
                await asyncio.sleep(0.5)
            good(await pair.detach(volume))
    for leg in (one, two):
        assert pair.file(leg[0]).read_bytes().count(content) == 2
        await pair.delete(leg[0])


async def state_of(told: AgentClient, attachment: str) -> str:
    return next(row.state for row in await told.attachments() if row.attachment_id == attachment)


async def replica_issues(told: AgentClient) -> list[str]:
    return [one.message for one in await told.issues() if one.code == "attachment.replica"]


def gone(connection: Connection) -> Connection:
    """The same replica where nothing answers."""
    dead = connection.portals[0].model_copy(update={"port": 4499})
    return connection.model_copy(update={"portals": (dead,)})
