"""The suite of the ECKD connector on a real DASD, its verbs in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.connectors.registry import connector
from agent.host import ccw
from agent.privsep import start
from tests.kernel.support.hercules import moved
from tests.support.eckd_suite import *  # noqa: F403
from tests.support.eckd_suite import ABSENT, wanted

pytestmark = pytest.mark.timeout(1800)


class Real:
    bus_id = "0.0.0122"
    uid = "HRC.ZZ000000000001.0120.22"

    @contextmanager
    def held(self) -> Iterator[None]:
        found = ccw.dasd(self.bus_id)
        assert found is not None
        fd = os.open(found.device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield
        finally:
            os.close(fd)

    async def away(self) -> None:
        await moved(self.bus_id, "no device", "detach 0122")

    async def back(self) -> None:
        await moved(self.bus_id, "good", "attach 0122 3390 dasd.0122")


@pytest.fixture(scope="module", autouse=True)
def limits(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("limits") / "limits.toml"
    file.write_text(f'[ccw]\nbus_ids = ["{Real.bus_id}", "{ABSENT}"]\n')
    start.start_direct(limits_file=file)


@pytest.fixture
async def place() -> Real:
    return Real()


@pytest.fixture(autouse=True)
async def given_up(place: Real) -> None:
    """What a failed test left online would spoil the next one."""
    found = ccw.dasd(place.bus_id)
    if found is not None and found.online:
        await connector("eckd").detach(wanted(place))


def test_the_root_of_this_guest_is_a_dasd_too(place: Real) -> None:
    assert Path("/").is_mount()
    assert any(one.bus_id == "0.0.0200" for one in ccw.dasds())
