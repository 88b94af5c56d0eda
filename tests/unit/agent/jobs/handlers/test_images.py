"""Images become volumes by the handlers, checked and encrypted, and a full disk is told."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.backends.config import FileBackendConfig
from agent.backends.errors import NoSpace
from agent.backends.file import FileBackend
from agent.base.errors import NotFound
from agent.base.ids import new_id
from agent.images.errors import SpoolFull
from agent.jobs.errors import NoImageStore
from agent.jobs.services import Services
from agent.wire.jobs import (
    ImageCommit,
    ImageDelete,
    ImageSource,
    LuksFormat,
    TransferClose,
    TransferOpen,
    TransferRef,
    VolumeCreate,
    VolumeFromImage,
)
from tests.unit.agent.jobs.handlers.onehost import MIB, SECRET, Host, needs_cryptsetup


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
