"""Handlers on the real file back end: made once, "already so" is success, nothing half made stays."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.backends.config import FileBackendConfig
from agent.backends.errors import NoSpace
from agent.backends.file import FileBackend
from agent.base.errors import Invalid, NotFound
from agent.base.ids import new_id
from agent.images.config import ImagesConfig
from agent.images.errors import SpoolFull
from agent.images.spool import MemorySpool, Spool
from agent.images.store import ImageStore
from agent.jobs import registry
from agent.jobs.conversion import Conversion
from agent.jobs.errors import NoImageStore, UnknownBackend
from agent.jobs.journal import Journal
from agent.jobs.kinds import Context
from agent.jobs.services import Services
from agent.luks.errors import WrongSecret
from agent.wire.jobs import (
    AttachmentApply,
    Generation,
    ImageCommit,
    ImageDelete,
    ImageSource,
    JobArgs,
    LuksFormat,
    Progress,
    SnapshotCreate,
    SnapshotDelete,
    TransferClose,
    TransferOpen,
    TransferRef,
    VolumeClone,
    VolumeCreate,
    VolumeDelete,
    VolumeExtend,
    VolumeFromImage,
    VolumeRecrypt,
    VolumeReimage,
    WantedAttachment,
    WireSecret,
    job_args,
)
from tests.support.luks import opens, read, write

MIB = 1 << 20
SECRET = WireSecret.of("passphrase", b"a passphrase")
needs_cryptsetup = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")


class Host:
    """One host's services; `fetched` is what a transfer would give."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched, self.fetched_into = folder, b"", ""
        self.journal = Journal(folder / "journal.db")
        self.backend = FileBackend("files", FileBackendConfig(path=folder / "files"))
        self.store = ImageStore(folder / "images")
        self.store.open()
        spool = Spool(folder / "spool", 1 << 30)
        spool.open()
        config = ImagesConfig(passphrase_iterations=1000)
        self.services = Services(
            host="host-a",
            journal=self.journal,
            backends={"files": self.backend},
            passphrase_iterations=1000,
            conversion=Conversion(spool, MemorySpool(256 * MIB), config, self._fetch),
            images=self.store,
        )
        self.told: list[Progress] = []

    async def _fetch(self, ref: TransferRef, fd: int, size: int, tell: Callable[[int], None]) -> int:
        self.fetched_into = os.readlink(f"/proc/self/fd/{fd}")
        os.pwrite(fd, self.fetched, 0)
        tell(len(self.fetched))
        return len(self.fetched)

    def context(self, **secrets: WireSecret) -> Context:
        async def save(checkpoint: dict[str, object]) -> None:
            return None

        return Context(key="op/x/1", services=self.services, report=self.told.append, save=save, secrets=secrets)

    async def do(self, args: JobArgs, **secrets: WireSecret) -> dict[str, object]:
        kind = registry.KINDS[args.kind]
        assert kind.secrets(args) <= secrets.keys()
        result = await kind.run(self.context(**secrets), args)
        return result.model_dump(mode="json") if result is not None else {}

    async def abandon(self, args: JobArgs) -> None:
        await registry.KINDS[args.kind].abandon(self.context(), args)

    def files(self) -> set[str]:
        root = self.folder / "files"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    await made.journal.open()
    yield made
    made.backend.close()
    await made.journal.close()


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


FORMATS: list[LuksFormat | None] = [
    None,
    LuksFormat(),
    LuksFormat(format="luks2", key_size=256),
    LuksFormat(cipher="aes-cbc-essiv:sha256", key_size=256),
]


@needs_cryptsetup
@pytest.mark.parametrize("after", FORMATS, ids=str)
@pytest.mark.parametrize("before", FORMATS, ids=str)
async def test_a_volume_gets_another_encryption_and_keeps_its_content(
    host: Host, before: LuksFormat | None, after: LuksFormat | None
) -> None:
    volume, other = new_id(), WireSecret.of("symmetric", bytes(range(32)))
    path, clear = host.folder / "files" / "volumes" / volume, os.urandom(MIB) + bytes(MIB)
    create = VolumeCreate(backend="files", volume_id=volume, size_bytes=2 * MIB, encryption=before)
    await host.do(create, **({"volume": SECRET} if before else {}))
    write(path, clear, SECRET if before else None)
    change = VolumeRecrypt(
        backend="files", volume_id=volume, size_bytes=2 * MIB, encrypted=before is not None, encryption=after
    )
    given = ({"source": SECRET} if before else {}) | ({"volume": other} if after else {})
    made = await host.do(change, **given)
    assert made == await host.do(change, **given), "the same once more changes nothing"
    header = {None: 0, "luks1": 2 * MIB, "luks2": 16 * MIB}[after.format if after else None]
    assert (made["usable_bytes"], made["device_bytes"]) == (2 * MIB, 2 * MIB + header)
    assert path.stat().st_size == 2 * MIB + header
    assert host.files() == {f"volumes/{volume}"}
    assert read(path, 2 * MIB, given.get("volume")) == clear
    if after:
        told = subprocess.run(["cryptsetup", "luksDump", path], capture_output=True, text=True, check=True).stdout
        assert after.cipher.partition("-")[2] in told
        assert clear[:4096] not in path.read_bytes()


async def test_what_was_decided_is_done_although_it_is_cancelled(host: Host) -> None:
    volume = new_id()
    await host.do(VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB))
    change = VolumeRecrypt(backend="files", volume_id=volume, size_bytes=MIB, encryption=LuksFormat())
    kind = registry.KINDS["volume.recrypt"]
    await host.backend.prepare_anew(volume, 3 * MIB)
    early, late = host.context(), host.context()
    assert await kind.abandon(early, change) is None
    assert host.files() == {f"volumes/{volume}"}
    await host.backend.prepare_anew(volume, 3 * MIB)
    late.checkpoint = {"decided": True}
    for _ in range(2):
        done = await kind.abandon(late, change)
        assert done is not None
        assert done.model_dump()["device_bytes"] == 3 * MIB
    assert (host.folder / "files" / "volumes" / volume).stat().st_size == 3 * MIB


def reimage(host: Host, volume: str, content: bytes) -> VolumeReimage:
    """From an image of this content."""
    image = new_id()
    host.store.incoming_path(image).write_bytes(content)
    host.store.incoming_path(image).rename(host.folder / "images" / "images" / image)
    source = {"image_id": image, "disk_format": "raw", "container_format": "bare", "size_bytes": len(content)}
    return VolumeReimage.model_validate({"backend": "files", "volume_id": volume, "size_bytes": MIB, "image": source})


async def test_a_new_content_is_whole_or_is_not(host: Host) -> None:
    volume, old, new = new_id(), os.urandom(MIB), os.urandom(MIB)
    path = host.folder / "files" / "volumes" / volume
    await host.do(VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB))
    path.write_bytes(old)
    change, kind = reimage(host, volume, new), registry.KINDS["volume.reimage"]
    await host.backend.prepare_anew(volume, MIB)
    assert await kind.abandon(host.context(), change) is None
    assert path.read_bytes() == old
    assert host.files() == {f"volumes/{volume}"}
    assert await host.do(change) == await host.do(change)
    assert path.read_bytes() == new
    decided = host.context()
    decided.checkpoint = {"decided": True}
    for _ in range(2):
        assert await kind.abandon(decided, change) is not None, "it goes forward only"
    assert path.read_bytes() == new


@pytest.mark.parametrize("way", ["again", "resumed", "cancelled", "another cancelled"])
async def test_a_kill_between_the_two_names_of_a_switch_loses_nothing(host: Host, way: str) -> None:
    volume, new = new_id(), os.urandom(MIB)
    path = host.folder / "files" / "volumes" / volume
    await host.do(VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB))
    change, context = reimage(host, volume, new), host.context()
    half = await host.backend.prepare_anew(volume, MIB)
    half.write_bytes(new)
    path.unlink()  # as a back end leaves it that needs two renames for a switch
    if way in ("resumed", "cancelled"):
        context.checkpoint = {"decided": True}
    kind = registry.KINDS["volume.reimage"]
    done = await (kind.run(context, change) if way in ("again", "resumed") else kind.abandon(context, change))
    assert (done is None) == (way == "another cancelled")
    assert path.read_bytes() == new
    assert host.files() == {f"volumes/{volume}"}


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


async def test_images_are_committed_used_and_removed(host: Host) -> None:
    image, volume, content = new_id(), new_id(), os.urandom(MIB)
    host.store.incoming_path(image).write_bytes(content)
    commit = ImageCommit(image_id=image, disk_format="raw", container_format="bare")
    kept = await host.do(commit)
    assert kept == await host.do(commit)
    digests = {str(one["algorithm"]): one["value"] for one in kept["checksums"]}  # type: ignore[attr-defined]
    assert digests == {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
    source = {"image_id": image, "disk_format": "raw", "container_format": "bare", "size_bytes": len(content)}
    make = VolumeFromImage.model_validate(
        {"backend": "files", "volume_id": volume, "size_bytes": 2 * MIB, "image": source}
    )
    assert await host.do(make) == await host.do(make)
    assert (host.folder / "files" / "volumes" / volume).read_bytes() == content + bytes(MIB)
    await host.do(ImageDelete(image_id=image))
    await host.do(ImageDelete(image_id=image))
    with pytest.raises(NotFound):
        await host.do(make.model_copy(update={"volume_id": new_id()}))


@needs_cryptsetup
async def test_an_image_that_was_fetched_is_checked_and_encrypted(host: Host) -> None:
    volume, host.fetched = new_id(), os.urandom(MIB)
    transfer = {"host": "host-b", "address": "127.0.0.1", "port": 1, "name": "x" * 20}
    checksum = {"algorithm": "sha256", "value": "0" * 64}
    source = {"image_id": new_id(), "disk_format": "raw", "container_format": "bare", "size_bytes": MIB,
              "transfer": transfer, "checksum": checksum}  # fmt: skip
    make = VolumeFromImage.model_validate(
        {"backend": "files", "volume_id": volume, "size_bytes": MIB, "image": source, "encryption": {}}
    )
    with pytest.raises(Exception, match="checksum"):
        await host.do(make, volume=SECRET)
    assert host.files() == set()
    good = make.image.model_copy(update={"checksum": None})
    result = await host.do(make.model_copy(update={"image": good}), volume=SECRET)
    assert result["usable_bytes"] == MIB
    whole = (host.folder / "files" / "volumes" / volume).read_bytes()
    assert whole.startswith(b"LUKS")
    assert host.fetched[:4096] not in whole
    assert host.told[0].phase == "fetch"
    assert not list((host.folder / "spool").iterdir())


@needs_cryptsetup
async def test_a_compressed_image_is_unpacked(host: Host) -> None:
    content = os.urandom(MIB) + bytes(MIB)
    host.fetched = gzip.compress(content)
    transfer = {"host": "host-b", "address": "127.0.0.1", "port": 1, "name": "x" * 20}
    source = {"image_id": new_id(), "disk_format": "raw", "container_format": "compressed",
              "size_bytes": len(host.fetched), "transfer": transfer}  # fmt: skip
    for encryption, size in ((None, 2 * MIB), ({}, 3 * MIB)):
        volume = new_id()
        make = VolumeFromImage.model_validate(
            {"backend": "files", "volume_id": volume, "size_bytes": size, "image": source, "encryption": encryption}
        )
        await host.do(make, **({"volume": SECRET} if encryption is not None else {}))
        whole = (host.folder / "files" / "volumes" / volume).read_bytes()
        assert (whole == content) == (encryption is None)
        assert whole.startswith(b"LUKS") == (encryption is not None)
    host.fetched = gzip.compress(bytes(200 * MIB))
    bomb = make.image.model_copy(update={"size_bytes": len(host.fetched)})
    with pytest.raises(Exception, match="unpacks to"):
        await host.do(make.model_copy(update={"volume_id": new_id(), "image": bomb}), volume=SECRET)
    assert not list((host.folder / "spool").iterdir())


async def test_a_host_without_store_or_data_port_says_so(host: Host) -> None:
    opened = TransferOpen(image_id=new_id(), direction="write", peer="coordinator")
    with pytest.raises(Exception, match="data port"):
        await host.do(opened)
    with pytest.raises(Exception, match="data port"):
        await host.do(TransferClose(name="x" * 20))
    bare = Services(host="host-a", journal=host.journal)
    with pytest.raises(NoImageStore, match="host-a"):
        bare.image_store()


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


@needs_cryptsetup
async def test_the_clear_image_of_an_encrypted_volume_is_fetched_into_memory_alone(host: Host) -> None:
    host.fetched = b"\0" * (2 * MIB)
    image = {
        "image_id": new_id(), "disk_format": "raw", "container_format": "bare", "size_bytes": 2 * MIB,
        "transfer": {"host": "host-z", "address": "127.0.0.1", "port": 1, "name": "x" * 20},
    }  # fmt: skip
    plain = {"backend": "files", "volume_id": new_id(), "size_bytes": 4 * MIB, "image": image}
    await host.do(VolumeFromImage.model_validate(plain))
    assert str(host.folder) in host.fetched_into
    await host.do(
        VolumeFromImage.model_validate({**plain, "volume_id": new_id(), "encryption": {"format": "luks1"}}),
        volume=SECRET,
    )
    assert host.fetched_into.startswith("/memfd:")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
@needs_cryptsetup
@pytest.mark.parametrize("luks", ["luks1", "luks2"])
async def test_a_full_file_system_is_told_as_that_and_nothing_stays(host: Host, tmp_path: Path, luks: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    backend = FileBackend("files", FileBackendConfig(path=small / "files", max_over_subscription=1000))
    host.services = replace(host.services, backends={"files": backend})
    try:
        encryption = LuksFormat.model_validate({"format": luks})
        host.store.incoming_path(image := new_id()).write_bytes(data := os.urandom(4 * MIB))
        await host.do(ImageCommit(image_id=image, disk_format="raw", container_format="bare"))
        source = ImageSource(image_id=image, disk_format="raw", container_format="bare", size_bytes=len(data))
        asked: list[VolumeCreate | VolumeFromImage] = [
            VolumeCreate(backend="files", volume_id=new_id(), size_bytes=4 * MIB, encryption=encryption),
            VolumeFromImage(
                backend="files", volume_id=new_id(), size_bytes=4 * MIB, image=source, encryption=encryption
            ),
            VolumeFromImage(backend="files", volume_id=new_id(), size_bytes=4 * MIB, image=source),
        ]
        for args in asked:
            with pytest.raises(NoSpace):
                await host.do(args, **({"volume": SECRET} if args.encryption else {}))
            await host.abandon(args)
            assert [path for path in small.rglob("*") if path.is_file()] == []
    finally:
        backend.close()
        subprocess.run(["umount", small], check=True)


async def test_a_spool_that_fills_up_meanwhile_is_tried_again(host: Host) -> None:
    async def fetch(ref: TransferRef, fd: int, size: int, tell: Callable[[int], None]) -> int:
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            return os.write(full, b"x")
        finally:
            os.close(full)

    assert host.services.conversion is not None
    host.services = replace(host.services, conversion=replace(host.services.conversion, fetch=fetch))
    ref = TransferRef(host="host-b", address="127.0.0.1", port=1, name="n" * 32)
    source = ImageSource(image_id=new_id(), disk_format="raw", container_format="bare", size_bytes=MIB, transfer=ref)
    with pytest.raises(SpoolFull):
        await host.do(VolumeFromImage(backend="files", volume_id=new_id(), size_bytes=MIB, image=source))
