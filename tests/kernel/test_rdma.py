"""NVMe and iSCSI over RDMA (RoCE in software): written, grown, lost, killed, without a device, and beside TCP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import facts, lio, nvme, nvmet, scsi
from agent.wire.jobs import Connection, ExportApply
from tests.integration.agent.agent_process import finish
from tests.kernel import test_one_path as one_path
from tests.kernel.support import diagnosed, initiator, soft_rdma
from tests.kernel.support.pair import MIB, SIZE, Pair, good
from tests.kernel.test_one_path import nothing

pair = one_path.pair
test_another_volume_at_the_address_is_refused = one_path.test_another_volume_at_the_address_is_refused
test_detach_when_the_target_is_gone = one_path.test_detach_when_the_target_is_gone
test_killed_while_attaching_and_detaching = one_path.test_killed_while_attaching_and_detaching
test_the_path_is_lost_and_io_goes_on_when_it_is_back = one_path.test_the_path_is_lost_and_io_goes_on_when_it_is_back
test_the_host_of_the_volume_restarts_and_io_goes_on = one_path.test_the_host_of_the_volume_restarts_and_io_goes_on


@pytest.fixture(scope="module", params=[soft_rdma.by_nvme, soft_rdma.by_iser])
def hosts(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with request.param() as made:
        yield made


def transports(connection: Connection) -> set[str]:
    """By what the kernel really reaches it."""
    found = nvme.subsystem(connection.target)
    by_nvme = {one.transport for one in found.controllers} if found is not None else set()
    return by_nvme | {one.transport() for one in scsi.sessions(connection.target)}


def offered(volume: str) -> int:
    """How many targets of the volume the kernel shows, by whatever transport."""
    by_iscsi = [found for kind in lio.FABRICS if (found := lio.target(volume, fabric=kind)) is not None]
    return len(by_iscsi) + len(nvmet.subsystems(volume))


async def test_written_grown_and_explained(pair: Pair) -> None:
    protocol = pair.transport.protocol
    assert protocol in facts.capabilities()
    async with pair.attached() as (volume, connection, device):
        assert (connection.protocol, connection.transport) == (protocol, "iser" if protocol == "iser" else "rdma")
        assert transports(connection) == {connection.transport}
        path, content = Path(device["device"]), os.urandom(MIB)
        initiator.write(path, content)
        with pair.file(volume).open("rb") as file:
            assert file.read(MIB) == content
        async with pair.away.client() as told, pair.home.client() as home:
            (row,) = await told.attachments()
            assert (row.state, row.protocol) == ("attached", protocol)
            (export,) = await home.exports()
            assert (export.state, export.target) == ("exported", connection.target)
            assert await pair.grow(volume, 2 * SIZE) == {row.attachment_id: 2 * SIZE}
        assert initiator.size(path) == 2 * SIZE
        assert initiator.read(path, MIB) == content
        assert f"target {connection.target}  (ready)" in diagnosed.explained(pair.home, volume)
        by = "by iSER" if protocol == "iser" else "by RDMA"
        assert f"{soft_rdma.SECOND}:{connection.portals[0].port} {by}" in diagnosed.explained(pair.away, volume)
        assert f"RDMA device {soft_rdma.DEVICE} (brickyard0) is active" in diagnosed.doctor(pair.home, "remote")
    assert nothing(connection)


async def test_beside_tcp_each_is_taken_back_alone(pair: Pair) -> None:
    volume, mine, other = await pair.made(), new_id(), new_id()
    args = pair.export_args(volume, mine, other).model_dump()
    tcp = {"iser": "iscsi", "nvme-rdma": "nvme-tcp"}[pair.transport.protocol]
    args["wanted"][1]["protocol"] = tcp
    both = ExportApply.model_validate(args)
    async with pair.home.client() as told:
        secrets = pair.chap(f"chap.{mine}", f"chap.{other}")
        result = good(await finish(told, pair.key("export"), 1, both, **secrets))
        ways = {one["attachment_id"]: Connection.model_validate(one["connection"]) for one in result["exported"]}
        assert {one.state for one in await told.exports()} == {"exported"}
    assert ways[other].target != ways[mine].target
    assert (ways[other].protocol, ways[other].transport) == (tcp, "tcp")
    assert offered(volume) == 2
    device = Path(good(await pair.attach(volume, ways[mine], mine))["attached"][0]["device"])
    await pair.export(volume, mine)
    assert offered(volume) == 1
    content = os.urandom(MIB)
    initiator.write(device, content)
    assert initiator.read(device, MIB) == content
    good(await pair.detach(volume))
    async with pair.home.client() as told:
        only = both.model_copy(update={"generation": pair.generation(), "wanted": both.wanted[1:]})
        good(await finish(told, pair.key("export"), 1, only, **pair.chap(f"chap.{other}")))
    assert offered(volume) == 1
    by_tcp = Path(good(await pair.attach(volume, ways[other], other))["attached"][0]["device"])
    assert transports(ways[other]) == {"tcp"}
    assert initiator.read(by_tcp, MIB) == content
    good(await pair.detach(volume))
    await pair.delete(volume)
    assert offered(volume) == 0


async def test_a_host_without_an_rdma_device_says_so_and_changes_nothing(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    soft_rdma.drop()
    try:
        assert pair.transport.protocol not in facts.capabilities()
        status = await pair.attach(volume, connection, attachment)
        assert status.error is not None
        assert status.error.code == "rdma.no-device"
        assert "rdma link" in status.error.hint
        assert nothing(connection)
        assert "There is no RDMA device for offering volumes" in diagnosed.doctor(pair.home, "remote")
        await pair.export(volume)
        async with pair.home.client() as told:
            again = pair.export_args(volume, attachment)
            refused = await finish(told, pair.key("export"), 1, again, **pair.chap(f"chap.{attachment}"))
        assert refused.error is not None
        assert refused.error.code == "rdma.no-device"
        portals = (soft_rdma.SECOND, soft_rdma.THIRD)
        assert any(f"portal {one}:" in refused.error.message for one in portals)
        await pair.export(volume)
        assert offered(volume) == 0
    finally:
        soft_rdma.add()
    if pair.transport.protocol == "nvme-rdma":  # the kernel's iSER target answers no log-in after its device was away
        connection = (await pair.export(volume, attachment))[attachment]
        good(await pair.attach(volume, connection, attachment))
        good(await pair.detach(volume))
    await pair.delete(volume)
