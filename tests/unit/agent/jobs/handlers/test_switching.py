"""A volume written anew: the new content is whole, or the old one is."""

from __future__ import annotations

import os
import subprocess

import pytest

from agent.base.ids import new_id
from agent.jobs import registry
from agent.wire.jobs import (
    LuksFormat,
    VolumeCreate,
    VolumeRecrypt,
    VolumeReimage,
    WireSecret,
)
from tests.support.luks import read, write
from tests.unit.agent.jobs.handlers.onehost import MIB, SECRET, Host, needs_cryptsetup

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
