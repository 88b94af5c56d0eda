"""A simulated IBM Z: two DASDs, both ignored at first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host.simulated_z import SimulatedDasd, SimulatedZ
from agent.host.simulator import SimulatedKernel
from tests.support.simulated import running_on


@pytest.fixture
def z(tmp_path: Path) -> Iterator[SimulatedZ]:
    simulated = SimulatedZ(SimulatedKernel(tmp_path))
    simulated.add(SimulatedDasd("0.0.0120", "SIM.750000000001.0120.20", formatted=False))
    simulated.add(SimulatedDasd("0.0.0121", "SIM.750000000001.0120.21", formatted=True))
    with running_on(simulated.kernel, ["0.0.0120-0.0.0121", "0.0.9999"]):
        yield simulated
