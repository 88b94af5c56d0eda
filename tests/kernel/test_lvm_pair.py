"""A volume on LVM, used by another host: by NVMe/TCP, and by iSCSI from a disk with large sectors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import nvme, sysfs
from agent.privsep import lio, nvmet
from agent.wire.jobs import AttachmentResize, LuksFormat, VolumeExtend
from tests.integration.agent.agent_process import Site, finish
from tests.kernel.lvm_support import GROUP, listed, tool, volume_group, watched
from tests.kernel.support import fabric, initiator, scsi_debug
from tests.kernel.support.pair import KEY, MIB, SIZE, Pair, Transport, good, pair_of
from tests.kernel.support.paths import becomes

BACKEND = f'\n[backends.thin]\ndriver = "lvm"\ngroup = "{GROUP}"\npool = "pool"\n'
SECTORS = {"iscsi": 4096, "nvme-tcp": 512}


def _transport(protocol: str) -> Transport:
    if protocol == "iscsi":
        table = '[targets.lio]\nportals = ["127.0.0.1"]'
        return Transport(protocol, initiator.iqn(), table + BACKEND, lio.lio_remove, "chap")
    name = nvme.host_nqn()
    assert name is not None
    return Transport(protocol, name, '[targets.nvmet]\nportals = ["127.0.0.1"]' + BACKEND, nvmet.nvmet_remove)


@pytest.fixture(scope="module", params=SECTORS)
def hosts(request: pytest.FixtureRequest, disks: tuple[Path, ...]) -> Iterator[Pair]:
    with ExitStack() as stack:
        by_iscsi = request.param == "iscsi"
        large = f"sector_size={SECTORS['iscsi']} lbpu=1 lbpws=1"
        disk = stack.enter_context(scsi_debug.disk(288, large)) if by_iscsi else disks[0]
        group = stack.enter_context(volume_group(disk))
        tool("lvcreate", "--yes", "--type", "thin-pool", "-L", "192M", "-n", "pool", group)
        # The pool's devices change at its first volume; a volume of the operator's own keeps them as they are.
        tool("lvcreate", "--yes", "-V", "4M", "--thinpool", "pool", "-n", "first", group)
        stack.enter_context(initiator.ready() if by_iscsi else fabric.ready())
        site = Site()
        with pair_of(site, _transport(request.param)) as made:
            made.backend = "thin"
            yield made
        site.remove()
        assert listed() == ["first", "pool"]


@pytest.fixture
async def pair(hosts: Pair) -> Pair:
    return await hosts.awake()


async def test_written_and_grown_there_and_read_at_home(pair: Pair) -> None:
    async with pair.attached() as (volume, _, device):
        path, content = Path(device["device"]), os.urandom(MIB)
        blocks = sysfs.SYS / "block" / path.name / "queue/logical_block_size"
        assert blocks.read_text().strip() == str(SECTORS[pair.transport.protocol])
        initiator.write(path, content, SIZE - MIB)
        async with pair.away.client() as told, pair.home.client() as home:
            extend = VolumeExtend(backend="thin", volume_id=volume, size_bytes=2 * SIZE)
            good(await finish(home, pair.key("extend"), 1, extend))
            follow = AttachmentResize(volume_id=volume, size_bytes=2 * SIZE)
            good(await finish(told, pair.key("follow"), 1, follow))
        assert initiator.size(path) == 2 * SIZE
        initiator.write(path, content, 2 * SIZE - MIB)
        good(await pair.detach(volume))
        await pair.export(volume)
        async with pair.home.client() as home:
            local = good(await finish(home, pair.key("local"), 1, pair.attach_args(volume, None, new_id())))
            here = Path(local["attached"][0]["device"])
            assert initiator.size(here) == 2 * SIZE
            assert [initiator.read(here, MIB, at) == content for at in (SIZE - MIB, 2 * SIZE - MIB)] == [True, True]
            good(await finish(home, pair.key("local"), 1, pair.attach_args(volume, None)))
    assert not sysfs.mapper_devices("brickyard-")


async def test_udev_does_not_watch_it(pair: Pair, disks: tuple[Path, ...]) -> None:
    """Else its main process waited for a lost path, and all that needs it."""
    async with pair.attached() as (_, _, device):
        tool("udevadm", "settle")
        assert not watched(Path(device["device"]))
        assert watched(disks[1])


async def test_its_host_restarts_and_io_goes_on(pair: Pair, tmp_path: Path) -> None:
    """The path is lost with it, and back; the volume is as it was."""
    async with pair.attached() as (_, connection, device):
        path, content = Path(device["device"]), os.urandom(MIB)
        initiator.write(path, content, SIZE - MIB)
        await pair.power_lost()
        assert not sysfs.mapper_devices("brickyard-")
        await becomes(connection, [False])
        async with pair.booted(tmp_path):
            # Nothing is asked before: a read by one iSCSI path waits for two minutes alone, which a slow boot may take.
            await becomes(connection, [True])
            assert initiator.read(path, MIB, SIZE - MIB) == content
            initiator.write(path, content)
            assert initiator.read(path, MIB) == content


async def test_detach_when_the_target_is_gone(pair: Pair) -> None:
    async with pair.attached() as (volume, connection, _):
        await pair.export(volume)
        await becomes(connection, [False])


async def test_killed_while_attaching_and_detaching_encrypted(pair: Pair) -> None:
    pair.encryption = LuksFormat()
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    result = await pair.killed(volume, connection, attachment, "agent.attachment.attached")
    device, content = Path(result["attached"][0]["device"]), os.urandom(MIB)
    assert device == Path(f"/dev/mapper/brickyard-{attachment}")
    initiator.write(device, content)
    await pair.away.kill()
    await pair.away.start()
    assert initiator.read(device, MIB) == content
    await pair.killed_detaching(volume)
    await pair.delete(volume)
    assert KEY.value() not in pair.away.log.read_bytes()
