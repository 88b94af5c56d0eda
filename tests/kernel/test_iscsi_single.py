"""A host without a multipath daemon: the portals of a volume are tried in their order, and one is used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import scsi
from agent.wire.jobs import AttachmentResize, Portal
from tests.integration.agent.agent_process import finish
from tests.kernel.support import initiator
from tests.kernel.support.pair import MIB, SIZE, Pair, good
from tests.kernel.support.single import SECOND, by_iscsi

NODES = Path("/etc/iscsi/nodes")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Pair]:
    with by_iscsi() as made:
        yield made


@pytest.fixture
async def pair(hosts: Pair) -> Pair:
    return await hosts.awake()


async def test_one_portal_is_used_and_the_first_that_answers(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    dead = Portal(address="127.0.0.1", port=3299)
    second = next(one for one in connection.portals if one.address == SECOND)
    connection = connection.model_copy(update={"portals": (dead, second, connection.portals[0])})
    device = good(await pair.attach(volume, connection, attachment))["attached"][0]
    assert [(one.address, one.port) for one in scsi.sessions(connection.target)] == [(SECOND, 3260)]
    assert sorted(path.name for path in (NODES / connection.target).iterdir()) == [f"{SECOND},3260"]
    content = os.urandom(MIB)
    initiator.write(Path(device["device"]), content)
    assert initiator.read(Path(device["device"]), MIB) == content
    async with pair.away.client() as told:
        same = AttachmentResize(volume_id=volume, size_bytes=SIZE)
        assert good(await finish(told, pair.key("follow"), 1, same))["sizes"] == {attachment: SIZE}
        assert not [one for one in await told.issues() if one.code.startswith("attachment.")]
    good(await pair.detach(volume))
    assert not scsi.sessions()
    assert not (NODES / connection.target).exists()
    await pair.delete(volume)


async def test_no_portal_answers_and_nothing_is_left(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    dead = tuple(Portal(address=address, port=3299) for address in ("127.0.0.1", SECOND))
    began = time.monotonic()
    status = await pair.attach(volume, connection.model_copy(update={"portals": dead}), attachment)
    assert time.monotonic() - began < 120
    assert status.error is not None
    assert status.error.code == "attachment.no-path"
    assert f"{SECOND}:3299" in status.error.message
    assert not (NODES / connection.target).exists()
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_detach_when_the_target_is_gone(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    good(await pair.attach(volume, connection, attachment))
    await pair.export(volume)
    good(await pair.detach(volume))
    assert not scsi.sessions()
    await pair.delete(volume)
