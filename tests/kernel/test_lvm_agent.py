"""A whole agent with volumes on LVM: over its API, as an ordinary user with its daemons, killed in between."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import sysfs
from agent.wire.jobs import (
    ExportApply,
    Generation,
    JobArgs,
    LuksFormat,
    SnapshotCreate,
    SnapshotDelete,
    VolumeAdopt,
    VolumeClone,
    VolumeCreate,
    VolumeDelete,
    VolumeExtend,
    VolumeRecrypt,
    VolumeRekey,
    VolumeRevert,
    WantedExport,
    WireSecret,
)
from agent.wire.results import ExportsResult
from tests.integration.agent.agent_process import AgentProcess, Site, finish, persist
from tests.kernel.lvm_support import GROUP, MIB, POINTS, REPLACING, digest, listed, put, tool, volume_group
from tests.kernel.support.lvm_caller import Caller, device_of, phrase

FIRST, OTHER, FIXED = (WireSecret.of("symmetric", bytes([one]) * 32) for one in (1, 2, 3))
SECRET = WireSecret.of("passphrase", b"lvm-canary")
BACKENDS = f"""
[backends.thin]
driver = "lvm"
group = "{GROUP}"
pool = "pool"
[backends.thick]
driver = "lvm"
group = "{GROUP}"
"""


@pytest.fixture(scope="module")
def group(disks: tuple[Path, ...]) -> Iterator[str]:
    with volume_group(disks[0]) as made:
        tool("lvcreate", "--yes", "--type", "thin-pool", "-L", "256M", "-n", "pool", made)
        # The pool's devices change at its first volume; a volume of the operator's own keeps them as they are.
        tool("lvcreate", "--yes", "-V", "4M", "--thinpool", "pool", "-n", "first", made)
        yield made


@pytest.fixture
def site(group: str) -> Iterator[Site]:
    made = Site()
    yield made
    made.remove()
    assert listed() == ["first", "pool"]
    assert not sysfs.mapper_devices("brickyard-")


@pytest.fixture
async def agent(site: Site) -> AsyncIterator[AgentProcess]:
    made = AgentProcess(site, store=True)
    made.config.write_text(made.config.read_text() + BACKENDS)
    yield made
    await made.kill()


@pytest.mark.parametrize("backend", ["thin", "thick"])
async def test_the_life_of_a_volume(agent: AgentProcess, backend: str) -> None:
    one, two, snap, attachment = (new_id() for _ in range(4))
    caller = Caller(agent, backend)
    await agent.start()
    await caller.do(VolumeCreate(backend=backend, volume_id=one, size_bytes=8 * MIB))
    device = device_of(await caller.do(caller.apply(one, attachment)))
    data = os.urandom(4 * MIB)
    put(device, data)
    if backend == "thick":
        await caller.do(caller.apply(one))
    await caller.do(SnapshotCreate(backend=backend, volume_id=one, snapshot_id=snap))
    device = device_of(await caller.do(caller.apply(one, attachment)))
    put(device, b"\xff" * MIB)
    await caller.do(VolumeClone(backend=backend, volume_id=two, size_bytes=12 * MIB, source_snapshot_id=snap))
    await caller.do(VolumeExtend(backend=backend, volume_id=one, size_bytes=20 * MIB))
    async with agent.client() as client:
        pools = {pool.backend: pool for pool in await client.pools()}
        assert pools[backend].allocated_bytes >= 40 * MIB
        assert {(row.attachment_id, row.state) for row in await client.attachments()} == {(attachment, "attached")}
        assert await client.issues() == []
    with device.open("rb", buffering=0) as seen:
        assert seen.seek(0, os.SEEK_END) == 20 * MIB
    await caller.do(caller.apply(one))
    other = device_of(await caller.do(caller.apply(two, attachment)))
    with other.open("rb", buffering=0) as seen:
        assert seen.seek(0, os.SEEK_END) == 12 * MIB
        seen.seek(0)
        assert seen.read(4 * MIB) == data
    await caller.do(caller.apply(two))
    await caller.do(SnapshotDelete(backend=backend, snapshot_id=snap))
    for volume in (one, two):
        await caller.do(VolumeDelete(backend=backend, volume_id=volume))


async def encrypted(caller: Caller, encryption: LuksFormat, data: bytes) -> str:
    """A volume of 8 MiB with these bytes at its beginning, under the key FIRST."""
    volume = new_id()
    make = VolumeCreate(backend=caller.backend, volume_id=volume, size_bytes=8 * MIB, encryption=encryption)
    await caller.do(make, volume=FIRST)
    put(device_of(await caller.do(caller.apply(volume, new_id(), encryption=encryption), volume=FIRST)), data)
    await caller.do(caller.apply(volume, encryption=encryption))
    return volume


FORMATS = {"thin": LuksFormat.model_validate({"format": "luks2"}),
           "thick": LuksFormat.model_validate({"format": "luks1"})}  # fmt: skip


@pytest.mark.parametrize("backend", ["thin", "thick"])
async def test_another_key_another_master_key_and_none(agent: AgentProcess, backend: str) -> None:
    caller, encryption, data = Caller(agent, backend), FORMATS[backend], os.urandom(MIB)
    await agent.start()
    volume = await encrypted(caller, encryption, data)
    before = await caller.look(volume, FIRST, encryption, data, OTHER)
    rekey = VolumeRekey(backend=backend, volume_id=volume)
    await caller.do(rekey, source=FIRST, volume=OTHER)
    after = await caller.look(volume, OTHER, encryption, data, FIRST)
    assert after[-8 * MIB :] == before[-8 * MIB :], "the content is not written anew"
    recrypt = {"backend": backend, "volume_id": volume, "size_bytes": 8 * MIB}
    await caller.do(VolumeRecrypt(**recrypt, encrypted=True, encryption=encryption), source=OTHER, volume=FIRST)
    anew = await caller.look(volume, FIRST, encryption, data, OTHER)
    assert anew[-8 * MIB :][: len(data)] != after[-8 * MIB :][: len(data)], "under another master key"
    # To an unencrypted volume of the same size, and back to an encrypted one.
    await caller.do(VolumeRecrypt(**recrypt, encrypted=True), source=FIRST)
    device = device_of(await caller.do(caller.apply(volume, new_id())))
    with device.open("rb", buffering=0) as seen:
        assert seen.read(len(data)) == data
        assert seen.seek(0, os.SEEK_END) == 8 * MIB
    await caller.do(caller.apply(volume))
    await caller.do(VolumeRecrypt(**recrypt, encryption=encryption), volume=OTHER)
    await caller.look(volume, OTHER, encryption, data, FIRST)
    await caller.do(VolumeDelete(backend=backend, volume_id=volume))


@pytest.mark.parametrize("backend", ["thin", "thick"])
async def test_what_others_encrypted_with_their_fixed_key_is_adopted_and_rekeyed(
    agent: AgentProcess, backend: str
) -> None:
    caller, encryption, data, volume = Caller(agent, backend), FORMATS[backend], os.urandom(MIB), new_id()
    place = ["-V", "24M", "--thinpool", "pool"] if backend == "thin" else ["-L", "24M"]
    tool("lvcreate", "--yes", "-Wn", *place, "-n", "volume-of-old", GROUP)
    there = f"/dev/{GROUP}/volume-of-old"
    few = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-"]
    for argv in (["luksFormat", "--batch-mode", "--type", encryption.format, *few, there],
                 ["open", "--type", "luks", "--key-file", "-", there, "old-clear"]):  # fmt: skip
        subprocess.run(["cryptsetup", *argv], input=phrase(FIXED), check=True)
    put(Path("/dev/mapper/old-clear"), data)
    tool("cryptsetup", "close", "old-clear")
    await agent.start()
    adopt = VolumeAdopt(
        backend=backend, volume_id=volume, source_name="volume-of-old", device_bytes=24 * MIB, encrypted=True
    )
    async with agent.client() as client:
        refused = await finish(client, "wrong/step/1", 1, adopt, volume=OTHER)
    assert refused.state == "failed"
    assert "volume-of-old" in listed(), "what its key does not open stays as it was"
    result = await caller.do(adopt, volume=FIXED)
    found = LuksFormat.model_validate(result["encryption"])
    assert found.format == encryption.format
    await caller.look(volume, FIXED, found, data, OTHER)
    await caller.do(VolumeRekey(backend=backend, volume_id=volume), source=FIXED, volume=OTHER)
    await caller.look(volume, OTHER, found, data, FIXED)
    await caller.do(VolumeDelete(backend=backend, volume_id=volume))


@pytest.mark.parametrize("point", ["agent.luks.key-added", "agent.luks.key-dropped", "agent.recrypt.copied",
                                   "agent.recrypt.decided", REPLACING, "agent.recrypt.replaced"])  # fmt: skip
async def test_killed_while_the_key_is_changed_one_key_opens_it(agent: AgentProcess, point: str) -> None:
    caller, encryption, data = Caller(agent, "thin"), FORMATS["thin"], os.urandom(MIB)
    await agent.start()
    volume = await encrypted(caller, encryption, data)
    await agent.kill()
    if point.startswith("agent.luks"):
        change: JobArgs = VolumeRekey(backend="thin", volume_id=volume)
    else:
        change = VolumeRecrypt(
            backend="thin", volume_id=volume, size_bytes=8 * MIB, encrypted=True, encryption=encryption
        )
    status = await persist(agent, "op-1/key/1", change, [f"testing.fault={point}"], source=FIRST, volume=OTHER)
    assert status.state == "done", status
    await caller.look(volume, OTHER, encryption, data, FIRST)
    await caller.do(VolumeDelete(backend="thin", volume_id=volume))


@pytest.mark.parametrize("point", POINTS)
async def test_killed_in_between_it_ends_well(agent: AgentProcess, point: str) -> None:
    volume, caller = new_id(), Caller(agent, "thick")
    create = VolumeCreate(backend="thick", volume_id=volume, size_bytes=5 * MIB)
    grow = VolumeExtend(backend="thick", volume_id=volume, size_bytes=9 * MIB)
    delete = VolumeDelete(backend="thick", volume_id=volume)
    fault = [f"testing.fault={point}"]
    if point in {"backend.lvm.made", "backend.lvm.zeroed"}:
        assert (await persist(agent, "op-1/make/1", create, fault)).state == "done"
    else:
        await agent.start()
        await caller.do(create)
        await agent.kill()
    if point == "backend.lvm.grown":
        assert (await persist(agent, "op-2/grow/1", grow, fault)).state == "done"
        device = device_of(await caller.do(caller.apply(volume, new_id())))
        assert digest(device, 9 * MIB) == digest(Path("/dev/zero"), 9 * MIB)
        await caller.do(caller.apply(volume))
    if point in {"backend.lvm.dying", "backend.lvm.wiped"}:
        assert (await persist(agent, "op-3/remove/1", delete, fault)).state == "done"
    else:
        await caller.do(delete)


@pytest.mark.parametrize("encryption", [None, LuksFormat()], ids=["clear", "encrypted"])
@pytest.mark.parametrize("backend", ["thin", "thick"])
async def test_killed_while_attaching_and_detaching(
    agent: AgentProcess, backend: str, encryption: LuksFormat | None
) -> None:
    volume, caller, data = new_id(), Caller(agent, backend), os.urandom(MIB)
    keys = {"volume": FIRST} if encryption is not None else {}
    await agent.start()
    create = VolumeCreate(backend=backend, volume_id=volume, size_bytes=8 * MIB, encryption=encryption)
    await caller.do(create, **keys)
    for number, point in enumerate(("decided", "attached")):
        await agent.kill()
        attachment, fault = new_id(), f"testing.fault=agent.attachment.{point}"
        apply = caller.apply(volume, attachment, encryption=encryption)
        status = await persist(agent, f"op-{number}/attach/1", apply, [fault], **keys)
        assert status.state == "done", status
        device = device_of(status.result or {})
        with device.open("rb", buffering=0) as seen:
            assert seen.seek(0, os.SEEK_END) == 8 * MIB
            seen.seek(0)
            first = seen.read(MIB)
        if number or encryption is None:  # of an encrypted one, what was never written is noise
            assert first == (data if number else bytes(MIB))
        put(device, data)
        async with agent.client() as client:
            assert [row.state for row in await client.attachments()] == ["attached"]
        await agent.kill()
        gone = caller.apply(volume, encryption=encryption)
        status = await persist(agent, f"op-{number}/detach/1", gone, ["testing.fault=agent.attachment.detached"])
        assert status.state == "done", status
        assert not sysfs.mapper_devices("brickyard-")
    await caller.do(VolumeDelete(backend=backend, volume_id=volume))


async def test_killed_between_the_two_names_a_revert_ends_well(agent: AgentProcess) -> None:
    volume, snap, caller, data = new_id(), new_id(), Caller(agent, "thin"), os.urandom(MIB)
    await agent.start()
    await caller.do(VolumeCreate(backend="thin", volume_id=volume, size_bytes=4 * MIB))
    attachment = new_id()
    put(device_of(await caller.do(caller.apply(volume, attachment))), data)
    await caller.do(SnapshotCreate(backend="thin", volume_id=volume, snapshot_id=snap))
    await caller.do(caller.apply(volume))
    await agent.kill()
    revert = VolumeRevert(backend="thin", volume_id=volume, snapshot_id=snap, size_bytes=4 * MIB)
    status = await persist(agent, "op-1/revert/1", revert, [f"testing.fault={REPLACING}"])
    assert status.state == "done", status
    device = device_of(await caller.do(caller.apply(volume, attachment)))
    assert digest(device, MIB) == hashlib.sha256(data).hexdigest()
    await caller.do(caller.apply(volume))
    await caller.do(SnapshotDelete(backend="thin", snapshot_id=snap))
    await caller.do(VolumeDelete(backend="thin", volume_id=volume))


async def test_a_volume_is_offered_to_another_host_with_exactly_its_bytes(agent: AgentProcess) -> None:
    volume, attachment, caller = new_id(), new_id(), Caller(agent, "thin")
    targets = '[targets.lio]\nportals = ["127.0.0.1"]\nport = 13260\n'
    agent.config.write_text(agent.config.read_text() + targets)
    size = 4 * MIB + 512
    await agent.start()
    await caller.do(VolumeCreate(backend="thin", volume_id=volume, size_bytes=size))

    def offer(sequence: int, *wanted: WantedExport) -> ExportApply:
        generation = Generation(incarnation=1, sequence=sequence)
        return ExportApply(backend="thin", volume_id=volume, generation=generation, wanted=wanted)

    user = WantedExport(attachment_id=attachment, protocol="iscsi", initiator="iqn.2026-01.org.test:b")
    made = ExportsResult.model_validate(await caller.do(offer(1, user)))
    assert made.exported[0].connection.size_bytes == size
    await caller.do(VolumeExtend(backend="thin", volume_id=volume, size_bytes=8 * MIB))
    (device,) = sysfs.mapper_devices("brickyard-lv-")
    assert device.size == 8 * MIB
    async with agent.client() as client:
        assert [row.state for row in await client.exports()] == ["exported"]
        refused = await finish(client, "op-9/remove/1", 1, VolumeDelete(backend="thin", volume_id=volume))
        assert refused.state == "failed"
    await caller.do(offer(2))
    await caller.do(VolumeDelete(backend="thin", volume_id=volume))


async def test_a_group_that_is_away_is_told_and_used_again_when_it_is_back(agent: AgentProcess) -> None:
    volume, caller = new_id(), Caller(agent, "thin")
    await agent.start()
    tool("vgrename", GROUP, "away")
    try:
        async with agent.client() as client:
            assert {pool.backend for pool in await client.pools()} == {"files"}
            assert {issue.code for issue in await client.issues()} == {"lvm.group-missing"}
            make = VolumeCreate(backend="thin", volume_id=volume, size_bytes=MIB)
            status = await finish(client, "op-1/make/1", 1, make)
            assert status.error is not None
            assert (status.error.code, status.error.status) == ("lvm.group-missing", 503)
    finally:
        tool("vgrename", "away", GROUP)
    await caller.do(VolumeCreate(backend="thin", volume_id=volume, size_bytes=MIB))
    await caller.do(VolumeDelete(backend="thin", volume_id=volume))
