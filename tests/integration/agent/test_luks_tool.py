"""Headers made by the real cryptsetup, only ever on files that were made for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.luks import header
from agent.luks.errors import FormatRefused, TargetInUse, WrongSecret
from agent.luks.luks1 import parse
from agent.luks.model import Format, Secret, device_bytes, header_bytes
from agent.luks.tool import format_header, fresh, make_blank, verify_opens
from agent.luks.unlock import unlock
from agent.luks.window import whole_file

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
MiB = 1 << 20
SECRET = Secret("symmetric", bytes(range(32)))


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    path = tmp_path / "partial"
    path.touch()
    return path


@pytest.mark.parametrize("fmt", [Format(), Format(key_size=256), Format("luks2"), Format("luks2", key_size=256)])
async def test_blank_volume(partial: Path, fmt: Format) -> None:
    for _ in range(2):
        await make_blank(partial, 8 * MiB, fmt, SECRET, iterations=1000)
    assert partial.stat().st_size == device_bytes(8 * MiB, fmt)
    with partial.open("rb") as file:
        made = header.parse(whole_file(file.fileno()))
    assert (made.payload_offset, made.payload_bytes) == (header_bytes(fmt), 8 * MiB)
    assert [(slot.kdf, slot.iterations) for slot in made.slots] == [("pbkdf2", 1000)]
    await verify_opens(partial, SECRET)
    with pytest.raises(WrongSecret) as caught:
        await verify_opens(partial, Secret("passphrase", SECRET.value))
    assert "volume" in str(caught.value)


async def test_chosen_master_key_is_found_again(partial: Path) -> None:
    key = os.urandom(64)
    fd = fresh(partial, 4 * MiB)
    await format_header(fd, Format(), SECRET, iterations=2000, volume_key=key)
    window = whole_file(fd)
    opened = unlock(window, parse(window), SECRET.value.hex().encode())
    assert (opened.master_key, opened.iterations) == (key, 2000)
    assert key.hex() not in repr(opened)
    os.close(fd)


async def test_header_only_on_an_empty_file_of_our_own(tmp_path: Path, partial: Path) -> None:
    fd = fresh(partial, 4 * MiB)
    os.pwrite(fd, b"data", 3 * MiB)
    with pytest.raises(TargetInUse):
        await format_header(fd, Format(), SECRET, iterations=1000)
    os.pwrite(fd, b"data", MiB)
    with pytest.raises(TargetInUse):
        await format_header(fd, Format(), SECRET, iterations=1000, payload_there=True)
    assert os.pread(fd, 6, 0) == bytes(6)
    os.close(fd)
    (tmp_path / "link").symlink_to(partial)
    os.link(partial, tmp_path / "second")
    for path in (tmp_path / "link", tmp_path / "second", tmp_path / "missing", tmp_path, Path("/dev/null")):
        with pytest.raises(TargetInUse):
            fresh(path, MiB)
    assert partial.stat().st_size == 4 * MiB


async def test_ciphers_that_are_not_made(partial: Path) -> None:
    for fmt in (Format(cipher="cipher_null-ecb"), Format(key_size=128)):
        with pytest.raises(FormatRefused):
            await make_blank(partial, MiB, fmt, SECRET, iterations=1000)
    assert partial.stat().st_size == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", folder], check=False).returncode
    ):
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["luks1", "luks2"])
async def test_full_disk(tmp_path: Path, small_disk: Path, kind: str) -> None:
    import asyncio

    from agent.copying.errors import DestinationFull
    from agent.images.inspect import Declared
    from agent.images.volume import Means, OpenedImage, Target, image_to_volume
    from agent.luks.convert import Watch

    path = small_disk / "partial"
    path.touch()
    fd = os.memfd_create("image")
    os.write(fd, os.urandom(32 * MiB))
    target = Target(path, 32 * MiB, Format(kind), SECRET)  # type: ignore[arg-type]
    with pytest.raises(DestinationFull):
        await image_to_volume(
            OpenedImage(fd, Declared("raw")), target, Means(), Watch(lambda _: None, asyncio.Event(), timeout_s=60)
        )
    assert path.stat().st_blocks == 0
    os.close(fd)
