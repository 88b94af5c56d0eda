"""The ECKD connector on a simulated IBM Z: the suite that runs on real DASDs, too, and what the kernel was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.host import ccw
from agent.host.simulated_z import SimulatedDasd, SimulatedZ
from agent.host.simulator import SimulatedKernel
from tests.support.eckd_suite import *  # noqa: F403
from tests.support.simulated import running_on

BUS, UID = "0.0.8001", "SIM.750000000001.8000.01"


@dataclass
class Simulated:
    z: SimulatedZ
    bus_id: str = BUS
    uid: str = UID

    @contextmanager
    def held(self) -> Iterator[None]:
        self.z.dasds[BUS].open_count += 1
        yield
        self.z.dasds[BUS].open_count -= 1

    async def away(self) -> None:
        self.z.detach(BUS)

    async def back(self) -> None:
        self.z.give_back(BUS)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Simulated]:
    z = SimulatedZ(SimulatedKernel(tmp_path))
    z.kernel.put("proc/cmdline", "root=/dev/x cio_ignore=all,!0.0.0009,!0.0.0100-0.0.01ff quiet")
    z.add(SimulatedDasd(BUS, UID, formatted=False))
    with running_on(z.kernel, ["0.0.8000-0.0.80ff", "0.0.0fff"]):
        yield Simulated(z)


@pytest.mark.parametrize(("bus_id", "ignored"), [("0.0.0009", False), ("0.0.0150", False), ("0.0.8001", True)])
def test_what_the_kernel_was_told_at_its_start(place: Simulated, bus_id: str, ignored: bool) -> None:
    assert ccw.ignored_at_start(bus_id) is ignored
