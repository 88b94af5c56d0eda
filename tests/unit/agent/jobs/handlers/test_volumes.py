"""Volumes and snapshots: made once, "already so" is success, nothing half made stays."""

from __future__ import annotations

import os

import pytest

from agent.base.errors import Invalid, NotFound
from agent.base.ids import new_id
from agent.jobs import registry
from agent.jobs.errors import UnknownBackend
from agent.luks.errors import WrongSecret
from agent.wire.jobs import (
    AttachmentApply,
    Generation,
    LuksFormat,
    SnapshotCreate,
    SnapshotDelete,
    VolumeClone,
    VolumeCreate,
    VolumeDelete,
    VolumeExtend,
    VolumeFromImage,
    WantedAttachment,
    WireSecret,
    job_args,
)
from tests.support.luks import opens
from tests.unit.agent.jobs.handlers.onehost import MIB, SECRET, Host, needs_cryptsetup


def test_every_kind_of_the_wire_has_a_handler() -> None:
    kinds = {str(model["properties"]["kind"]["const"]) for model in job_args.json_schema()["$defs"].values()
             if "kind" in model.get("properties", {})}  # fmt: skip
    assert kinds == registry.KINDS.keys()
    assert all(name == kind.name for name, kind in registry.KINDS.items())


async def test_create_extend_delete_are_each_the_same_twice(host: Host) -> None:
    volume = new_id()
    create = VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB)
    assert await host.do(create) == await host.do(create)
    extend = VolumeExtend(backend="files", volume_id=volume, size_bytes=3 * MIB)
    assert (await host.do(extend))["usable_bytes"] == 3 * MIB
    assert (await host.do(extend))["device_bytes"] == 3 * MIB
    smaller = await host.do(extend.model_copy(update={"size_bytes": 2 * MIB}))
    assert smaller["device_bytes"] == 3 * MIB, "an older extend that runs again changes nothing"
    remove = VolumeDelete(backend="files", volume_id=volume)
    await host.do(remove)
    await host.do(remove)
    assert host.files() == set()
    with pytest.raises(NotFound):
        await host.do(extend)
    with pytest.raises(UnknownBackend, match="files"):
        await host.do(create.model_copy(update={"backend": "other"}))


@needs_cryptsetup
@pytest.mark.parametrize("luks", ["luks1", "luks2"])
async def test_an_encrypted_volume_gives_its_full_size_whatever_is_done_with_it(host: Host, luks: str) -> None:
    volume, clone, second = new_id(), new_id(), new_id()
    encryption = LuksFormat.model_validate({"format": luks})
    create = VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB, encryption=encryption)
    made = await host.do(create, volume=SECRET)
    assert made == await host.do(create, volume=SECRET)
    header = int(str(made["device_bytes"])) - MIB
    assert header == (2 if luks == "luks1" else 16) * MIB
    assert host.files() == {f"volumes/{volume}"}
    extend = VolumeExtend(backend="files", volume_id=volume, size_bytes=2 * MIB, encrypted=True)
    grown = await host.do(extend)
    assert grown == await host.do(extend)
    assert (grown["usable_bytes"], grown["device_bytes"]) == (2 * MIB, 2 * MIB + header)
    copy = VolumeClone(backend="files", volume_id=clone, size_bytes=4 * MIB, source_volume_id=volume, encrypted=True)
    cloned = await host.do(copy)
    assert cloned == await host.do(copy)
    assert (cloned["usable_bytes"], cloned["device_bytes"]) == (4 * MIB, 4 * MIB + header)
    snapshot = SnapshotCreate(backend="files", volume_id=volume, snapshot_id=new_id())
    kept = await host.do(snapshot)
    assert kept["device_bytes"] == 2 * MIB + header
    copy = VolumeClone(
        backend="files", volume_id=second, size_bytes=2 * MIB, source_snapshot_id=snapshot.snapshot_id, encrypted=True
    )
    assert (await host.do(copy))["device_bytes"] == 2 * MIB + header
    held = [
        os.open(host.folder / "files" / kind / one, os.O_RDONLY)
        for kind, one in (("snapshots", snapshot.snapshot_id), ("volumes", clone))
    ]
    assert [os.pread(fd, 4, 0) for fd in held] == [b"LUKS", b"LUKS"]
    await host.do(SnapshotDelete(backend="files", snapshot_id=snapshot.snapshot_id))
    assert host.files() == {f"volumes/{one}" for one in (volume, clone, second)}
    await host.do(VolumeDelete(backend="files", volume_id=clone))
    with (host.folder / "files" / "volumes" / second).open("rb") as other:
        same = other.read(1 << 19)
    for fd in held:
        # What lay on the disk can not be opened any more.
        content = os.pread(fd, 1 << 19, 0)
        assert content[:4] != b"LUKS"
        assert content[16384:16388] != b"SKUL"
        assert content[32768:98304] != same[32768:98304]
        os.close(fd)


@needs_cryptsetup
@pytest.mark.parametrize("luks", ["luks1", "luks2"])
@pytest.mark.parametrize("kind", ["volume", "snapshot"])
async def test_a_clone_opens_with_its_own_key_alone(host: Host, luks: str, kind: str) -> None:
    volume, snapshot, clone = new_id(), new_id(), new_id()
    own, volumes = WireSecret.of("symmetric", bytes(range(32))), host.folder / "files" / "volumes"
    encryption = LuksFormat.model_validate({"format": luks})
    await host.do(VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB, encryption=encryption), volume=SECRET)
    await host.do(SnapshotCreate(backend="files", volume_id=volume, snapshot_id=snapshot))
    source = {"source_volume_id": volume} if kind == "volume" else {"source_snapshot_id": snapshot}
    copy = VolumeClone(backend="files", volume_id=clone, size_bytes=MIB, **source, encrypted=True, rekey=True)
    assert registry.KINDS["volume.clone"].secrets(copy) == {"source", "volume"}
    # What a kill between the copy and the change of its key leaves, is finished by the next run.
    await host.do(copy.model_copy(update={"rekey": False}))
    assert opens(volumes / clone, b"a passphrase")
    made = await host.do(copy, source=SECRET, volume=own)
    assert made["rekeyed"]
    assert made == await host.do(copy, source=SECRET, volume=own)
    assert opens(volumes / clone, bytes(range(32)).hex().encode())
    assert not opens(volumes / clone, b"a passphrase")
    assert opens(volumes / volume, b"a passphrase")
    assert (volumes / clone).read_bytes()[-MIB:] == (volumes / volume).read_bytes()[-MIB:]
    other = copy.model_copy(update={"volume_id": new_id()})
    with pytest.raises(WrongSecret):
        await host.do(other, source=own, volume=own.model_copy(update={"type": "passphrase"}))


def test_a_clone_without_a_new_key_is_told_as_it_always_was() -> None:
    plain = VolumeClone(backend="files", volume_id=new_id(), size_bytes=MIB, source_volume_id=new_id())
    assert "rekey" not in plain.model_dump(mode="json")
    assert plain.model_copy(update={"rekey": True}).model_dump(mode="json")["rekey"]


async def test_a_clone_needs_one_source(host: Host) -> None:
    both = VolumeClone(
        backend="files", volume_id=new_id(), size_bytes=MIB, source_volume_id=new_id(), source_snapshot_id=new_id()
    )
    for wrong in (both, both.model_copy(update={"source_volume_id": None, "source_snapshot_id": None})):
        with pytest.raises(Invalid, match="one source"):
            await host.do(wrong)


async def test_what_is_abandoned_leaves_nothing(host: Host) -> None:
    volume = new_id()
    await host.backend.prepare(volume, MIB)
    assert host.files() == {f"partial/{volume}"}
    create = VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB)
    await host.abandon(create)
    assert host.files() == set()
    await host.do(create)
    await host.abandon(create)
    assert host.files() == {f"volumes/{volume}"}, "what is published is for the operation's own undo"
    snapshot = SnapshotCreate(backend="files", volume_id=volume, snapshot_id=new_id())
    await host.do(snapshot)
    await host.abandon(snapshot)
    assert host.files() == {f"volumes/{volume}"}


def test_secrets_are_asked_for_where_they_are_needed() -> None:
    base = {"backend": "files", "volume_id": new_id(), "size_bytes": 1}
    kinds = registry.KINDS
    assert kinds["volume.create"].secrets(VolumeCreate.model_validate(base)) == frozenset()
    encrypted = VolumeCreate.model_validate({**base, "encryption": {}})
    assert kinds["volume.create"].secrets(encrypted) == {"volume"}
    image = {"image_id": new_id(), "disk_format": "qcow2", "container_format": "bare", "size_bytes": 1}
    both = VolumeFromImage.model_validate({**base, "encryption": {}, "image": {**image, "encrypted": True}})
    assert kinds["volume.from_image"].secrets(both) == {"image", "volume"}


def test_a_delete_or_an_attach_waits_for_who_reads_the_volume() -> None:
    volume = new_id()
    clone = VolumeClone(backend="files", volume_id=new_id(), size_bytes=1, source_volume_id=volume)
    reading = registry.KINDS["volume.clone"].needs(clone)
    removing = registry.KINDS["volume.delete"].needs(VolumeDelete(backend="files", volume_id=volume))
    snapping = registry.KINDS["snapshot.create"].needs(
        SnapshotCreate(backend="files", volume_id=volume, snapshot_id=new_id())
    )
    wanted = (WantedAttachment(attachment_id=new_id()),)
    generation = Generation(incarnation=1, sequence=1)
    apply = AttachmentApply(backend="files", volume_id=volume, generation=generation, wanted=wanted)
    attaching = registry.KINDS["attachment.apply"].needs(apply)
    detaching = registry.KINDS["attachment.apply"].needs(apply.model_copy(update={"wanted": ()}))
    for source in (set(reading.shared), set(snapping.shared)):
        assert source & set(removing.exclusive)
        assert source & set(attaching.exclusive)
        assert not source & set(detaching.exclusive)
    assert not set(reading.shared) & set(registry.KINDS["volume.extend"].needs(
        VolumeExtend(backend="files", volume_id=volume, size_bytes=1)).exclusive)  # fmt: skip
