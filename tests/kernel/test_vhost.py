"""Volumes for guests of their own host by vhost-scsi: used as a guest does, grown, killed, held, refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import BrickyardError
from agent.base.ids import new_id
from agent.host import lio, scsi, sysfs
from agent.privsep import client, start
from agent.privsep import lio as verbs
from agent.wire.jobs import LOCAL_GUESTS, Connection, VolumeExtend
from tests.integration.agent.agent_process import Site, finish, persist
from tests.kernel.support import bootable, diagnosed, guest
from tests.kernel.support.initiator import sh
from tests.kernel.support.pair import MIB, SIZE, Pair, Transport, good, pair_of
from tests.support import site as sites

TABLE = "[targets.vhost]"
_LISTED = """
import rtslib_fb
for target in rtslib_fb.RTSRoot().targets:
    for lun in (lun for group in target.tpgs for lun in group.luns):
        print(target.fabric_module.name, target.wwn, lun.lun, lun.storage_object.name, lun.storage_object.udev_path)
"""
_STORES = lio.CONFIGFS / "core" / lio.HBA


@pytest.fixture(scope="module")
def hosts() -> Iterator[Pair]:
    sh("modprobe -a target_core_mod loop vhost_scsi")
    site = Site()
    with pair_of(site, Transport("vhost", LOCAL_GUESTS, TABLE, verbs.lio_remove, how={"fabric": "vhost"})) as made:
        yield made
    site.remove()


@pytest.fixture
async def pair(hosts: Pair) -> AsyncIterator[Pair]:
    """What a test that failed still offers is taken back, so that the next one fails for its own reasons alone."""
    yield await hosts.awake()
    await hosts.awake()
    async with hosts.home.client() as home:
        left = {one.volume_id for one in await home.exports()}
    for volume in left:
        await hosts.export(volume)


def endpoints() -> set[str]:
    """What configfs has, whoever made it."""
    return {path.name for path in (lio.CONFIGFS / "vhost").glob("naa.*")}


async def offered(pair: Pair) -> tuple[str, str, Connection]:
    volume, attachment = await pair.made(), new_id()
    return volume, attachment, (await pair.export(volume, attachment))[attachment]


async def ended(pair: Pair, volume: str) -> None:
    await pair.delete(volume)
    assert endpoints() == set()
    assert not _STORES.exists()


async def test_a_guest_reads_and_writes_and_sees_it_grow(pair: Pair) -> None:
    volume, attachment, told = await offered(pair)
    assert endpoints() == {told.target}
    assert (told.protocol, told.lun, told.portals) == ("vhost", 0, ())
    (found,) = lio.targets(fabric="vhost")
    file = pair.file(volume)
    assert (found.target, found.ready) == (told.target, True)
    assert sysfs.text(Path("/sys/block", Path(found.device).name, "loop/backing_file")) == str(file)
    content = os.urandom(MIB)
    with guest.opened(told.target) as running:
        assert running.serial() == volume
        assert told.identity == scsi.lio_identity(volume)
        assert running.size() == SIZE
        running.write(2048, content)
        assert running.read(2048, MIB) == content
        with file.open("rb") as below:
            below.seek(MIB)
            assert below.read(MIB) == content
        async with pair.home.client() as home:
            extend = VolumeExtend(backend=pair.backend, volume_id=volume, size_bytes=2 * SIZE)
            good(await finish(home, pair.key("extend"), 1, extend))
        assert running.size() == 2 * SIZE
        running.write(2 * SIZE // 512 - 2048, content)
        assert running.read(2 * SIZE // 512 - 2048, MIB) == content
    assert await pair.export(volume, attachment) == {attachment: told.model_copy(update={"size_bytes": 2 * SIZE})}
    assert f"target {told.target}  (for guests of this host)" in diagnosed.explained(pair.home, volume)
    assert "ok: Guests of this host can have volumes by vhost." in diagnosed.doctor(pair.home, "remote")
    await pair.export(volume)
    assert endpoints() == set()
    await pair.export(volume)
    await ended(pair, volume)


async def test_qemu_boots_from_it(pair: Pair) -> None:
    """A whole machine: its firmware's driver of virtio-scsi finds the volume, reads and writes it."""
    volume = await pair.made()
    wanted = bootable.prepare(pair.file(volume))
    attachment = new_id()
    told = (await pair.export(volume, attachment))[attachment]
    for _ in range(2):
        ended_with = await asyncio.to_thread(bootable.run, f"vhost-scsi-pci,wwpn={told.target}")
        assert ended_with == bootable.DONE
        with pair.file(volume).open("r+b") as file:
            file.seek(2 * bootable.SECTOR)
            assert file.read(bootable.SECTOR) == wanted
            file.seek(2 * bootable.SECTOR)
            file.write(bytes(bootable.SECTOR))
    await ended(pair, volume)


async def test_what_a_guest_has_open_is_not_taken_away(pair: Pair) -> None:
    volume, _, told = await offered(pair)
    content = os.urandom(MIB)
    with guest.opened(told.target) as running:
        running.write(0, content)
        with pytest.raises(OSError, match=r"\[Errno"), guest.opened(told.target):
            pass
        async with pair.home.client() as home:
            refused = await finish(home, pair.key("export"), 1, pair.export_args(volume))
            assert refused.error is not None
            assert refused.error.code == "vhost.held"
            assert f"endpoint {told.target} of volume {volume}" in refused.error.message
            (export,) = await home.exports()
            assert (export.state, export.target) == ("stale", told.target)
        assert [one.ready for one in lio.targets(fabric="vhost")] == [True]
        assert running.read(0, MIB) == content
        await pair.home.kill()
        await pair.home.start()
        assert running.read(0, MIB) == content
    await ended(pair, volume)


async def test_killed_in_between_and_started_anew(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    fault = ["testing.fault=agent.export.applied"]
    await pair.home.kill()
    args = pair.export_args(volume, attachment)
    made = good(await persist(pair.home, pair.key("export"), args, fault))["exported"]
    (told,) = [Connection.model_validate(one["connection"]) for one in made]
    with guest.opened(told.target) as running:
        await pair.home.kill()
        await pair.home.start()
        async with pair.home.client() as home:
            (export,) = await home.exports()
        assert (export.state, export.target, export.connected) == ("exported", told.target, None)
        assert endpoints() == {told.target}
        assert running.serial() == volume
    await pair.home.kill()
    good(await persist(pair.home, pair.key("export"), pair.export_args(volume), fault))
    assert endpoints() == set()
    await ended(pair, volume)


async def test_the_host_restarts_and_offers_it_again(pair: Pair, tmp_path: Path) -> None:
    volume, _, told = await offered(pair)
    content = os.urandom(MIB)
    with guest.opened(told.target) as running:
        running.write(0, content)
    await pair.power_lost(volume)
    assert endpoints() == set()
    async with pair.booted(tmp_path):
        assert endpoints() == {told.target}
        with guest.opened(told.target) as running:
            assert running.read(0, MIB) == content
        await ended(pair, volume)


@pytest.mark.parametrize("steps", range(1, 6))
async def test_what_was_half_made_becomes_whole_or_goes(pair: Pair, steps: int) -> None:
    volume = await pair.made()
    half(volume, steps)
    with direct(pair):
        assert client.invoke(verbs.lio_remove, volume, fabric="vhost")
        assert not client.invoke(verbs.lio_remove, volume, fabric="vhost")
    assert (endpoints(), _STORES.exists()) == (set(), False)
    half(volume, steps)
    attachment = new_id()
    told = (await pair.export(volume, attachment))[attachment]
    with guest.opened(told.target) as running:
        assert running.serial() == volume
    await ended(pair, volume)


def half(volume: str, steps: int) -> None:
    """What the kernel has of an export that was killed after so many steps of it."""
    group = lio.folder(volume, "vhost") / "tpgt_1"
    for folder in (_STORES, group.parent.parent):
        folder.mkdir(exist_ok=True)
    for folder in (_STORES / volume, group.parent, group, group / "lun/lun_0")[:steps]:
        folder.mkdir()
    if steps > 4:
        (group / "nexus").write_text(lio.nexus_of(volume))


async def test_without_the_module_and_without_the_device(pair: Pair) -> None:
    volume, attachment = await pair.made(), new_id()
    sh("rmdir /sys/kernel/config/target/vhost 2>/dev/null; modprobe -r vhost_scsi")
    try:
        async with pair.home.client() as home:
            refused = await finish(home, pair.key("export"), 1, pair.export_args(volume, attachment))
        assert refused.error is not None
        assert refused.error.code == "vhost.no-module"
        assert "modprobe vhost_scsi" in refused.error.hint
        assert not (_STORES / volume).exists()
        assert "bad: The kernel's module vhost_scsi is not loaded" in diagnosed.doctor(pair.home, "remote")
        await pair.export(volume)
    finally:
        sh("modprobe vhost_scsi")
    pair.file(volume).rename(pair.file(volume).with_suffix(".away"))
    async with pair.home.client() as home:
        refused = await finish(home, pair.key("export"), 1, pair.export_args(volume, attachment))
        assert refused.error is not None
    assert not (_STORES / volume).exists()
    pair.file(volume).with_suffix(".away").rename(pair.file(volume))
    with direct(pair), pytest.raises(BrickyardError, match="loop77"):
        client.invoke(verbs.lio_apply, volume, "/dev/loop77", None, [], [], fabric="vhost")
    assert not (_STORES / volume).exists()
    told = (await pair.export(volume, attachment))[attachment]
    assert endpoints() == {told.target}
    await ended(pair, volume)


@contextmanager
def direct(pair: Pair) -> Iterator[None]:
    """The privileged verbs in this process."""
    start.start_direct(roots=[pair.home.volumes])
    try:
        yield
    finally:
        client.set_mode("none")


async def test_beside_iscsi_each_is_taken_back_alone(pair: Pair) -> None:
    volume, attachment, told = await offered(pair)
    (found,) = lio.targets(fabric="vhost")
    with direct(pair):
        diskseq = sysfs.diskseq(Path(found.device).name)
        client.invoke(verbs.lio_apply, volume, found.device, diskseq, [], [])
        assert (len(lio.targets()), len(lio.targets(fabric="vhost"))) == (1, 1)
        assert client.invoke(verbs.lio_remove, volume)
        assert not client.invoke(verbs.lio_remove, volume)
    with guest.opened(told.target) as running:
        assert running.serial() == volume
    assert (await pair.export(volume, attachment))[attachment] == told
    await ended(pair, volume)


def test_asked_for_by_the_api_used_and_ended() -> None:
    sh("modprobe -a target_core_mod loop vhost_scsi")
    with sites.running(agent_sets=("targets.vhost={}",)) as site:
        volume = site.api.made("for a guest")
        home = str(site.api.volume(volume)["os-vol-host-attr:host"]).partition("@")[0]
        made = asked(site, volume, {"host": home, "vhost": True})
        told = made["connection_info"]
        assert told["driver_volume_type"] == "vhost_scsi"
        assert (told["target_lun"], {told["target_wwpn"]}) == (0, endpoints())
        site.api.post(f"/v3/attachments/{made['id']}/action", {"os-complete": None})
        content = os.urandom(MIB)
        with guest.opened(told["target_wwpn"]) as running:
            running.write(0, content)
            with next(site.folder.rglob(f"volumes/{volume}")).open("rb") as file:
                assert file.read(MIB) == content
        assert site.api.delete(f"/v3/attachments/{made['id']}") == {"attachments": []}
        assert endpoints() == set()
        path, connector = f"/v3/volumes/{volume}/action", {"host": home, "vhost": True}
        for _ in range(2):
            again = site.api.post(path, {"os-initialize_connection": {"connector": connector}})["connection_info"]
            assert (again["driver_volume_type"], again["data"]["target_wwpn"]) == ("vhost_scsi", told["target_wwpn"])
        for _ in range(2):
            site.api.post(path, {"os-terminate_connection": {"connector": connector}})
            assert endpoints() == set()
        local = asked(site, volume, {"host": home})
        assert local["connection_info"]["driver_volume_type"] == "local"
        assert site.api.delete(f"/v3/attachments/{local['id']}") == {"attachments": []}
        site.clean()


def asked(site: sites.Site, volume: str, connector: dict[str, Any]) -> dict[str, Any]:
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": None, "connector": connector}}
    return dict(site.api.post("/v3/attachments", body)["attachment"])


async def test_other_tools_know_it_and_root_alone_may_open_it(pair: Pair) -> None:
    volume, _, told = await offered(pair)
    (found,) = lio.targets(fabric="vhost")
    listed = sh(f"/usr/bin/python3 -W ignore -c '{_LISTED}'", check=False)
    assert f"vhost {told.target} 0 {volume} {found.device}\n" in listed
    about = Path("/dev/vhost-scsi").stat()
    assert (about.st_mode & 0o777, about.st_uid) == (0o600, 0)
    await ended(pair, volume)
