"""Sessions by an interface of open-iscsi that the operator has recorded, and by plain TCP where that does not work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import scsi
from tests.kernel.support import initiator
from tests.kernel.support.diagnosed import explained
from tests.kernel.support.initiator import sh
from tests.kernel.support.pair import MIB, Pair, good
from tests.kernel.support.single import by_iscsi

_NAME = "tcpcopy"


@pytest.fixture(scope="module")
def hosts() -> Iterator[Pair]:
    with by_iscsi() as made:
        with made.away.config.open("a") as config:
            config.write(f'[connectors]\niscsi_interface = "{_NAME}"\n')
        yield made


@pytest.fixture
async def pair(hosts: Pair) -> Pair:
    return await hosts.awake()


def recorded(transport: str) -> None:
    sh(f"iscsiadm -m iface -I {_NAME} --op=new")
    sh(f"iscsiadm -m iface -I {_NAME} --op=update -n iface.transport_name -v {transport}")


def forgotten() -> None:
    sh(f"iscsiadm -m iface -I {_NAME} --op=delete", check=False)


@pytest.mark.parametrize(
    ("transport", "used"), [("tcp", _NAME), (None, "default"), ("bnx2i", "default")], ids=["works", "unknown", "broken"]
)
async def test_the_interface_is_used_where_it_works_and_told_where_not(
    pair: Pair, transport: str | None, used: str
) -> None:
    if transport is not None:
        recorded(transport)
    try:
        volume, attachment = await pair.made(), new_id()
        connection = (await pair.export(volume, attachment))[attachment]
        before = pair.away.log.read_text().count("does not work")
        device = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
        (session,) = scsi.sessions(connection.target)
        assert session.interface() == used
        assert f"Iface Name: {used}" in sh("iscsiadm -m session -P 3")
        assert (f" by {_NAME}" in explained(pair.away, volume)) == (used == _NAME)
        assert (pair.away.log.read_text().count("does not work") > before) == (used != _NAME)
        content = os.urandom(MIB)
        initiator.write(device, content)
        with pair.file(volume).open("rb") as file:
            assert file.read(MIB) == content
        good(await pair.detach(volume))
        assert not scsi.sessions(connection.target)
        assert not Path("/etc/iscsi/nodes", connection.target).exists()
        await pair.delete(volume)
    finally:
        forgotten()
