"""The ECKD connector on a simulated IBM Z."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.connectors.errors import DetachIncomplete, DeviceMismatch, NotAttached
from agent.connectors.registry import connector
from agent.eckd.errors import DasdForeign
from agent.host import ccw
from agent.host.simulated_z import SimulatedDasd, SimulatedZ
from agent.host.simulator import SimulatedKernel
from agent.wire.jobs import ChannelDevice, Connection
from tests.support.simulated import running_on

BUS, UID = "0.0.8001", "SIM.750000000001.8000.01"
SIZE = 100 * 15 * 12 * 4096


@pytest.fixture
def z(tmp_path: Path) -> Iterator[SimulatedZ]:
    simulated = SimulatedZ(SimulatedKernel(tmp_path))
    simulated.kernel.put("proc/cmdline", "root=/dev/x cio_ignore=all,!0.0.0009,!0.0.0100-0.0.01ff quiet")
    simulated.add(SimulatedDasd(BUS, UID, formatted=False))
    with running_on(simulated.kernel, ["0.0.8000-0.0.80ff"]):
        yield simulated


def wanted(identity: str = UID, size: int = SIZE, **channel: object) -> Connection:
    device = ChannelDevice.model_validate({"bus_id": BUS, "layout": "cdl", **channel})
    return Connection(protocol="eckd", target=BUS, identity=identity, size_bytes=size, channel=device)


async def test_attach_present_detach(z: SimulatedZ) -> None:
    dasd = connector("eckd")
    found = await dasd.attach(wanted())
    assert (found.device, found.size, found.paths) == ("/dev/dasda", SIZE, ("dasda",))
    assert dasd.present(wanted()) == found
    assert await dasd.resize(wanted(), SIZE) == found
    with pytest.raises(DeviceMismatch, match="does not grow"):
        await dasd.resize(wanted(), SIZE + 1)
    assert await dasd.detach(wanted())
    assert ccw.is_ignored(BUS)
    assert ccw.device(BUS) is None
    assert not await dasd.detach(wanted())
    with pytest.raises(NotAttached):
        await dasd.resize(wanted(), SIZE)


async def test_only_the_promised_device_of_the_promised_size(z: SimulatedZ) -> None:
    with pytest.raises(DasdForeign):
        await connector("eckd").attach(wanted("SIM.750000000001.8000.02"))
    with pytest.raises(DeviceMismatch, match="bytes, not"):
        await connector("eckd").attach(wanted(size=SIZE + 4096))
    assert not [one for one in ccw.dasds() if one.online]


async def test_a_busy_detach_names_the_device(z: SimulatedZ) -> None:
    await connector("eckd").attach(wanted())
    z.dasds[BUS].open_count = 1
    with pytest.raises(DetachIncomplete, match="/dev/dasda"):
        await connector("eckd").detach(wanted(), deadline=0.2)
    z.dasds[BUS].open_count = 0
    assert await connector("eckd").detach(wanted())


async def test_taken_away_while_attached_is_not_there(z: SimulatedZ) -> None:
    await connector("eckd").attach(wanted())
    z.detach(BUS)
    assert connector("eckd").present(wanted()) is None
    z.give_back(BUS)
    assert connector("eckd").present(wanted()) is not None


@pytest.mark.parametrize(("bus_id", "ignored"), [("0.0.0009", False), ("0.0.0150", False), ("0.0.8001", True)])
def test_what_the_kernel_was_told_at_its_start(z: SimulatedZ, bus_id: str, ignored: bool) -> None:
    assert ccw.ignored_at_start(bus_id) is ignored
