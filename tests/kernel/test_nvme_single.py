"""A kernel that does not gather paths itself (nvme_core.multipath=N): one portal is used, the first that answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import connector, nvme
from agent.wire.jobs import Portal
from tests.kernel.support import initiator
from tests.kernel.support.pair import MIB, Pair, good
from tests.kernel.support.single import SECOND, by_nvme


@pytest.fixture(scope="module")
def hosts() -> Iterator[Pair]:
    with by_nvme() as made:
        yield made


@pytest.fixture
async def pair(hosts: Pair) -> Pair:
    return await hosts.awake()


async def test_the_first_portal_that_answers_is_the_only_path(pair: Pair) -> None:
    assert not connector.properties("10.0.0.1")["nvme_native_multipath"]
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    dead = Portal(address="127.0.0.1", port=4499)
    connection = connection.model_copy(update={"portals": (dead, *connection.portals)})
    device = good(await pair.attach(volume, connection, attachment))["attached"][0]
    found = nvme.subsystem(connection.target)
    assert found is not None
    assert [(one.address, one.port, one.live) for one in found.controllers] == [("127.0.0.1", 4420, True)]
    content = os.urandom(MIB)
    initiator.write(Path(device["device"]), content)
    with pair.file(volume).open("rb") as file:
        assert file.read(MIB) == content
    async with pair.away.client() as told:
        (row,) = await told.attachments()
        assert (row.state, len(row.paths)) == ("attached", 1)
    good(await pair.detach(volume))
    assert not nvme.subsystems()
    await pair.delete(volume)


async def test_no_portal_answers_and_nothing_is_left(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    dead = tuple(Portal(address=address, port=4499) for address in ("127.0.0.1", SECOND))
    status = await pair.attach(volume, connection.model_copy(update={"portals": dead}), attachment)
    assert status.error is not None
    assert status.error.code == "attachment.no-path"
    assert not nvme.subsystems()
    good(await pair.detach(volume))
    await pair.delete(volume)
