"""One path is all there is, by iSCSI and by NVMe/TCP: the first portal that answers, lost and back, kills, a reboot."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import connector
from agent.wire.jobs import Connection, LuksFormat, Portal
from tests.kernel.support import initiator
from tests.kernel.support.pair import MIB, SIZE, Pair, good
from tests.kernel.support.paths import becomes, up, ways
from tests.kernel.support.single import SECOND, by_iscsi, by_nvme

_NODES, _NOBODY = Path("/etc/iscsi/nodes"), 3299
_DEAD = tuple(Portal(address=address, port=_NOBODY) for address in ("127.0.0.1", SECOND))


@pytest.fixture(scope="module", params=[by_iscsi, by_nvme])
def hosts(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with request.param() as made:
        yield made


@pytest.fixture
async def pair(hosts: Pair) -> Pair:
    return await hosts.awake()


async def offered(pair: Pair) -> tuple[str, str, Connection]:
    """A new volume, an attachment, and the way to it by the second portal alone."""
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    portals = tuple(one for one in connection.portals if one.address == SECOND)
    return volume, attachment, connection.model_copy(update={"portals": portals})


@asynccontextmanager
async def used(pair: Pair) -> AsyncIterator[tuple[str, Connection, Path, bytes]]:
    """Attached, with something in it."""
    volume, attachment, connection = await offered(pair)
    device = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
    content = os.urandom(MIB)
    initiator.write(device, content)
    yield volume, connection, device, content
    good(await pair.detach(volume))
    assert nothing(connection)
    await pair.delete(volume)


def nothing(connection: Connection) -> bool:
    return not ways(connection) and not (_NODES / connection.target).exists()


async def test_the_first_portal_that_answers_is_the_only_path_written_and_grown(pair: Pair) -> None:
    assert not connector.properties("10.0.0.1")["nvme_native_multipath"] or pair.transport.protocol == "iscsi"
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    (second,) = (one for one in connection.portals if one.address == SECOND)
    (first,) = (one for one in connection.portals if one != second)
    connection = connection.model_copy(update={"portals": (_DEAD[0], second, first)})
    device = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
    assert ways(connection) == [(SECOND, second.port, True)]
    content = os.urandom(MIB)
    initiator.write(device, content)
    with pair.file(volume).open("rb") as file:
        assert file.read(MIB) == content
    async with pair.away.client() as told:
        (row,) = await told.attachments()
        assert row.state == "attached"
        assert await pair.grow(volume, 2 * SIZE) == {attachment: 2 * SIZE}
        assert not [one for one in await told.issues() if one.code.startswith("attachment.")]
    assert initiator.size(device) == 2 * SIZE
    assert initiator.read(device, MIB) == content
    good(await pair.detach(volume))
    assert nothing(connection)
    await pair.delete(volume)


async def test_no_portal_answers_and_nothing_is_left(pair: Pair) -> None:
    volume, attachment, connection = await offered(pair)
    began = time.monotonic()
    status = await pair.attach(volume, connection.model_copy(update={"portals": _DEAD}), attachment)
    assert time.monotonic() - began < 120
    assert status.error is not None
    assert status.error.code == "attachment.no-path"
    assert f"{SECOND}:{_NOBODY}" in status.error.message
    assert nothing(connection)
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_detach_when_the_target_is_gone(pair: Pair) -> None:
    async with used(pair) as (volume, _, _, _):
        await pair.export(volume)


async def test_the_path_is_lost_and_io_goes_on_when_it_is_back(pair: Pair) -> None:
    async with used(pair) as (_, connection, device, content):
        initiator.sh(f"ip addr del {SECOND}/24 dev brickyard0")
        try:
            await becomes(connection, [False])
            waiting = asyncio.create_task(asyncio.to_thread(initiator.read, device, MIB))
        finally:
            initiator.sh(f"ip addr add {SECOND}/24 dev brickyard0")
        assert await waiting == content
        await becomes(connection, [True])


async def test_a_device_that_a_process_has_open_stays_and_names_it(pair: Pair) -> None:
    async with used(pair) as (volume, connection, device, content):
        with device.open("rb") as file:
            user = subprocess.Popen(["sleep", "600"], stdin=file, user=65534)
        with user:
            try:
                status = await pair.detach(volume)
                assert status.error is not None, "it was taken away from a process"
                assert status.error.code == "attachment.left-over"
                assert f"process {user.pid} (sleep)" in status.error.message
                assert up(connection) == [True]
                assert initiator.read(device, MIB) == content
            finally:
                user.kill()


async def test_another_volume_at_the_address_is_refused(pair: Pair) -> None:
    one, first, wanted = await offered(pair)
    two, _, other = await offered(pair)
    swapped = wanted.model_copy(update={"target": other.target, "username": other.username})
    status = await pair.attach(one, swapped, first)
    assert (status.state, status.error and status.error.code) == ("failed", "attachment.mismatch"), status
    assert nothing(other)
    good(await pair.detach(one))
    await pair.delete(one)
    await pair.delete(two)


async def test_the_host_of_the_volume_restarts_and_io_goes_on(pair: Pair, tmp_path: Path) -> None:
    async with used(pair) as (_, connection, device, content):
        await pair.power_lost()
        await becomes(connection, [False])
        waiting = asyncio.create_task(asyncio.to_thread(initiator.read, device, MIB))
        async with pair.booted(tmp_path):
            assert await waiting == content
            await becomes(connection, [True])


async def test_killed_while_attaching_and_detaching(pair: Pair) -> None:
    pair.encryption = LuksFormat()
    volume, attachment, connection = await offered(pair)
    device = Path(
        (await pair.killed(volume, connection, attachment, "agent.attachment.decided"))["attached"][0]["device"]
    )
    assert device == Path(f"/dev/mapper/brickyard-{attachment}")
    content = os.urandom(MIB)
    initiator.write(device, content)
    assert initiator.read(device, MIB) == content
    await pair.killed_detaching(volume)
    assert nothing(connection)
    await pair.delete(volume)
