"""A device that somebody has open, or mounted, is taken away by force: nobody writes any more, and the host is free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import nvme, scsi, sysfs
from agent.privsep import lio
from agent.wire.jobs import LuksFormat
from tests.integration.agent.agent_process import Site
from tests.kernel.support import initiator
from tests.kernel.support.holding import mounted, opened
from tests.kernel.support.pair import Pair, Transport, good, pair_of
from tests.kernel.support.single import SECOND, by_iscsi, by_nvme

_WAYS = ("opened", "mounted")


@contextmanager
def by_multipath() -> Iterator[Pair]:
    table = f'[targets.lio]\nportals = ["127.0.0.1", "{SECOND}"]'
    with initiator.ready(SECOND, multipath=True):
        site = Site()
        with pair_of(site, Transport("iscsi", initiator.iqn(), table, lio.lio_remove, "chap")) as made:
            yield made
        site.remove()


@pytest.fixture(scope="module", params=["iscsi", "nvme", "multipath"])
def hosts(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = {"iscsi": by_iscsi, "nvme": by_nvme, "multipath": by_multipath}[request.param]
    with made() as pair:
        yield pair


@pytest.fixture
async def pair(hosts: Pair) -> Pair:
    return await hosts.awake()


def held(how: str, device: Path, folder: Path) -> AbstractContextManager[Path]:
    return opened(device) if how == "opened" else mounted(device, folder / "place")


def nothing(target: str) -> bool:
    return not scsi.sessions(target) and nvme.subsystem(target) is None


@pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "encrypted"])
@pytest.mark.parametrize("how", _WAYS)
async def test_taken_away_by_force_and_attached_again(pair: Pair, tmp_path: Path, how: str, encrypted: bool) -> None:
    pair.encryption = LuksFormat(format="luks2") if encrypted else None
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    device = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
    with held(how, device, tmp_path):
        if how == "mounted" or encrypted:
            refused = await pair.detach(volume)
            assert refused.error is not None, "it was taken away without force"
        good(await pair.detach(volume, force=True))
        assert nothing(connection.target)
        good(await pair.detach(volume, force=True))
    assert not sysfs.mapper_devices(sysfs.CUT_PREFIX)
    again = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
    if how == "opened":
        assert initiator.read(again, 8192) == b"kept" * 1024 + bytes(4096)
    else:
        initiator.sh(f"e2fsck -fy {again}", check=False)
        initiator.sh(f"mount -o ro {again} {tmp_path}/place")
        assert (tmp_path / "place/kept").read_bytes() == b"kept" * 1024
        initiator.sh(f"umount {tmp_path}/place")
    good(await pair.detach(volume))
    await pair.delete(volume)


@pytest.mark.parametrize("how", _WAYS)
async def test_killed_while_it_was_taken_away(pair: Pair, tmp_path: Path, how: str) -> None:
    pair.encryption = LuksFormat(format="luks2")
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    device = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
    with held(how, device, tmp_path):
        await pair.killed_detaching(volume, force=True)
        assert nothing(connection.target)
    assert not sysfs.mapper_devices(sysfs.CUT_PREFIX)
    await pair.delete(volume)
