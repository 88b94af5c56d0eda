"""What `explain` tells of DASDs and of LUNs over a fabric."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.connectors.registry import connector
from agent.diagnostics import live
from agent.diagnostics.transports import reached
from agent.host.simulated_scsi import Volume
from agent.host.simulated_z import SimulatedDasd, SimulatedZ
from agent.host.simulated_zfcp import SimulatedFcp
from agent.host.simulator import SimulatedKernel
from agent.wire.jobs import ChannelDevice, Connection, Fabric, FabricPort
from tests.support.simulated import running_on

WWPN, LUN, BUS = "0x5005076300c20c8a", "0x000a000000000000", "0.0.8001"
IDENTITY = Volume().identity


@pytest.fixture
def z(tmp_path: Path) -> Iterator[SimulatedZ]:
    made = SimulatedZ(SimulatedKernel(tmp_path))
    with running_on(made.kernel, ["0.0.1800", BUS]):
        yield made


def drawn(connection: Connection, z: SimulatedZ) -> str:
    return "\n".join(line for node in reached(connection, z.kernel.sys) for line in live.lines(node))


async def test_a_lun_with_its_adapter_and_path(z: SimulatedZ) -> None:
    SimulatedFcp(z.kernel, {WWPN: (LUN,)}).add_adapter("0.0.1800")
    fabric = Fabric(ports=(FabricPort(wwpn=WWPN.removeprefix("0x"), lun=10),))
    told = Connection(protocol="fc", target=IDENTITY, identity=IDENTITY, size_bytes=1, fabric=fabric)
    assert "adapter" not in drawn(told, z)
    await connector("fc").attach(told, deadline=5)
    assert f"adapter 0.0.1800  ({WWPN}, LUN {LUN}, by unit)" in drawn(told, z)
    assert "path /dev/sda" in drawn(told, z)


async def test_a_dasd_with_what_the_channel_says(z: SimulatedZ) -> None:
    z.add(SimulatedDasd(BUS, "SIM.750000000001.8000.01", formatted=True))
    device, uid = ChannelDevice(bus_id=BUS), "SIM.750000000001.8000.01"
    told = Connection(protocol="eckd", target=BUS, identity=uid, size_bytes=1, channel=device)
    assert "it is ignored" in drawn(told, z)
    await connector("eckd").attach(told, deadline=5)
    assert "path /dev/dasda" in drawn(told, z)
    z.detach(BUS)
    assert "the channel says no device" in drawn(told, z)
