"""Which devices the privileged side takes for volumes of other hosts or arrays, on a simulated host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host.simulated_z import SimulatedDasd, SimulatedZ
from agent.host.simulated_zfcp import SimulatedFcp
from agent.host.simulator import SimulatedKernel
from agent.privsep import devices, multipath
from agent.privsep.errors import VerbRefused
from tests.support.simulated import running_on
from tests.unit.agent.host.test_nvme import TARGET, controller, namespace

WWPN, LUN = "0x5005076300c20c8a", "0x000a000000000000"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[SimulatedKernel]:
    made = SimulatedKernel(tmp_path)
    with running_on(made, ["0.0.1800", "0.0.0120"]):
        z = SimulatedZ(made)
        for bus_id in ("0.0.0120", "0.0.0121"):
            z.add(SimulatedDasd(bus_id, "SIM.1.2.3", formatted=True, ignored=False))
            made.write(made.sys / "bus/ccw/devices" / bus_id / "online", "1")
        for bus_id in ("0.0.1800", "0.0.1900"):
            fabric = SimulatedFcp(made, {WWPN: (LUN,)}, multipathd=bus_id == "0.0.1900")
            fabric.add_adapter(bus_id)
            made.write(made.sys / f"bus/ccw/drivers/zfcp/{bus_id}/{WWPN}/unit_add", LUN)
            fabric.disks.clear()
        yield made


def test_only_what_root_named(kernel: SimulatedKernel) -> None:
    kernel.put("sys/block/sdz/dev", "8:400")  # a disk of no fabric at all
    said = {name: devices.remote(name) for name in ("dasda", "dasdb", "sda", "sdz")}
    assert said == {"dasda": True, "dasdb": False, "sda": True, "sdz": False}


def test_what_has_lost_all_its_paths_does_not_answer(tmp_path: Path) -> None:
    made = SimulatedKernel(tmp_path)
    with running_on(made):
        sys = made.sys
        for name, state in (("sda", "running"), ("sdb", "transport-offline"), ("sdc", "blocked")):
            made.put(f"sys/block/{name}/device/state", state)
        made.put("sys/class/block/sda3/partition", "3")
        stacked = {"dm-0": "sda sdb", "dm-1": "sdb sdc", "dm-2": "dm-1", "dm-3": "", "dm-4": "sda3", "md0": ""}
        for over, below in stacked.items():
            made.put(f"sys/block/{over}/dm/uuid", "mpath-3x" if over == "dm-3" else "")
            (sys / "block" / over / "slaves").mkdir()
            for each in below.split():
                (sys / "block" / over / "slaves" / each).mkdir()
        made.put("sys/block/loop0/ro", "0")
        made.put("sys/block/nvme9n1/device/state", "live")  # of this host itself
        for number, state in enumerate(("connecting", "live")):
            controller(sys, number, number, state=state, target=f"{TARGET}{number}")
            namespace(sys, number)
        known = [entry.name for entry in (sys / "block").iterdir()]
        answering = {"sda", "dm-0", "dm-4", "loop0", "nvme9n1", "nvme1n1"}
        assert {name for name in known if devices.answers(name)} == answering
        assert not devices.answers("sdz")


async def test_verbs_refuse_the_others(kernel: SimulatedKernel) -> None:
    kernel.put("sys/block/sdz/dev", "8:400")
    for device in ("/dev/sdz", "/dev/dasda", "/dev/../etc", "sda"):
        with pytest.raises(VerbRefused):
            multipath.multipath_add(device)
    with pytest.raises(VerbRefused):
        multipath.multipath_remove("naa.1; rm -rf /")
