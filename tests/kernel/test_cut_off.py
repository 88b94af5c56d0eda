"""A device that somebody has open, or mounted, is taken away by force: nobody writes any more, and the host is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import nvme, scsi, sysfs
from agent.privsep import lio
from agent.wire.jobs import AttachmentApply, Generation, LuksFormat, VolumeCreate, VolumeDelete, WantedAttachment
from tests.integration.agent.agent_process import AgentProcess, Site, finish
from tests.kernel.lvm_support import GROUP, tool, volume_group
from tests.kernel.support import initiator
from tests.kernel.support.holding import mounted, opened
from tests.kernel.support.pair import KEY, SIZE, Pair, Transport, good, pair_of
from tests.kernel.support.single import SECOND, by_iscsi, by_nvme

WAYS = pytest.mark.parametrize(
    ("how", "encrypted"), [("opened", True), ("mounted", False)], ids=["opened-encrypted", "mounted-clear"]
)


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


async def no_husk() -> None:
    """The kernel removes it a moment after the last one has closed it."""
    gone = lambda: not sysfs.mapper_devices(sysfs.CUT_PREFIX)  # noqa: E731
    await asyncio.to_thread(initiator.until, gone, 30, "a device that was cut off is still there")


def nothing(target: str) -> bool:
    return not scsi.sessions(target) and nvme.subsystem(target) is None


@WAYS
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
    await no_husk()
    again = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
    if how == "opened":
        assert initiator.read(again, 4096) == b"kept" * 1024
    else:
        initiator.sh(f"e2fsck -fy {again}", check=False)
        initiator.sh(f"mount -o ro {again} {tmp_path}/place")
        assert (tmp_path / "place/kept").read_bytes() == b"kept" * 1024
        initiator.sh(f"umount {tmp_path}/place")
    good(await pair.detach(volume))
    await pair.delete(volume)


async def test_killed_while_it_was_taken_away(pair: Pair) -> None:
    pair.encryption = LuksFormat(format="luks2")
    volume, attachment = await pair.made(), new_id()
    connection = (await pair.export(volume, attachment))[attachment]
    device = Path(good(await pair.attach(volume, connection, attachment))["attached"][0]["device"])
    with opened(device):
        await pair.killed_detaching(volume, force=True)
        assert nothing(connection.target)
    await no_husk()
    await pair.delete(volume)


@pytest.fixture
async def here(disks: tuple[Path, ...]) -> AsyncIterator[AgentProcess]:
    """A host with volumes of its own: files, and logical volumes."""
    with volume_group(disks[0]) as group:
        tool("lvcreate", "--yes", "--type", "thin-pool", "-L", "256M", "-n", "pool", group)
        site = Site()
        made = AgentProcess(site)
        made.config.write_text(
            f'{made.config.read_text()}\n[backends.thin]\ndriver = "lvm"\ngroup = "{GROUP}"\npool = "pool"\n'
        )
        await made.start()
        yield made
        await made.kill()
        site.remove()


@WAYS
@pytest.mark.parametrize("backend", ["files", "thin"])
async def test_on_its_own_host(here: AgentProcess, tmp_path: Path, backend: str, how: str, encrypted: bool) -> None:
    volume, attachment, count = new_id(), new_id(), iter(range(1, 9))
    encryption, secrets = (LuksFormat(format="luks2"), {"volume": KEY}) if encrypted else (None, {})

    def apply(*wanted: str, force: bool = False) -> AttachmentApply:
        return AttachmentApply(
            backend=backend, volume_id=volume, encryption=encryption, force=force,
            generation=Generation(incarnation=1, sequence=next(count)),
            wanted=tuple(WantedAttachment(attachment_id=one) for one in wanted),
        )  # fmt: skip

    async with here.client() as told:
        args = VolumeCreate(backend=backend, volume_id=volume, size_bytes=SIZE, encryption=encryption)
        good(await finish(told, f"{volume}/make/1", 1, args, **secrets))
        made = good(await finish(told, f"{volume}/attach/1", 1, apply(attachment), **secrets))
        with held(how, Path(made["attached"][0]["device"]), tmp_path):
            refused = await finish(told, f"{volume}/detach/1", 1, apply())
            assert refused.error is not None, "it was taken away without force"
            good(await finish(told, f"{volume}/cut/1", 1, apply(force=True)))
            assert await told.attachments() == []
            # Who holds what is left is in nobody's way.
            good(await finish(told, f"{volume}/delete/1", 1, VolumeDelete(backend=backend, volume_id=volume)))
    await no_husk()
