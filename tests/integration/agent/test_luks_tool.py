"""Headers of new volumes, judged by the real cryptsetup; only ever on files that were made for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.copying.errors import CopyCancelled
from agent.luks import header
from agent.luks.blank import empty, half_made, make_blank
from agent.luks.container import create, reveal, take_up
from agent.luks.errors import FormatRefused, NotLuks, TargetInUse, WrongSecret
from agent.luks.model import Format, Secret, device_bytes, header_bytes
from agent.luks.unlock import unlock
from agent.luks.window import whole_file
from tests.support.luks import verify_opens

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
MiB = 1 << 20
REFUSED = [Format("luks1", *told) for told in (("aes-ecb", 256), ("aes-cbc-null", 256), ("aes-cbc-plain64", 192))]
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


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
async def test_a_hidden_header_opens_for_its_owner_alone(partial: Path, kind: Any) -> None:
    key, fmt = os.urandom(64), Format(kind)
    fd = half_made(partial)
    empty(fd, 24 * MiB)
    assert take_up(fd, fmt, SECRET) is None
    made = create(fd, fmt, SECRET, iterations=2000, master=key)
    with pytest.raises(NotLuks):
        header.parse(whole_file(fd))
    assert subprocess.run(["cryptsetup", "isLuks", partial], check=False).returncode == 1
    for again in (take_up(fd, fmt, SECRET), made):
        assert again is not None
        assert (again.master_key, again.iterations, again.header.uuid) == (key, 2000, made.header.uuid)
        assert key.hex() not in repr(again) + repr(again.cipher())
    assert take_up(fd, fmt, Secret("symmetric", bytes(32))) is None
    assert take_up(fd, Format(kind, key_size=256), SECRET) is None
    for _ in range(2):
        reveal(fd, fmt)
        opened = unlock(whole_file(fd), header.read(whole_file(fd)), SECRET.value.hex().encode())
        assert opened.master_key == key
        await verify_opens(partial, SECRET)
        assert take_up(fd, fmt, SECRET) is not None
    os.close(fd)


async def test_header_only_on_an_empty_file_of_our_own(tmp_path: Path, partial: Path) -> None:
    fd = half_made(partial)
    for at in (3 * MiB, MiB):
        empty(fd, 4 * MiB)
        os.pwrite(fd, b"data", at)
        with pytest.raises(TargetInUse):
            create(fd, Format(), SECRET, iterations=1000)
        assert os.pread(fd, 6, 0) == bytes(6)
    os.close(fd)
    (tmp_path / "link").symlink_to(partial)
    os.link(partial, tmp_path / "second")
    for path in (tmp_path / "link", tmp_path / "second", tmp_path / "missing", tmp_path, Path("/dev/null")):
        with pytest.raises(TargetInUse):
            half_made(path)
    assert partial.stat().st_size == 4 * MiB


async def test_ciphers_that_are_not_made(partial: Path) -> None:
    for fmt in (Format(cipher="cipher_null-ecb"), Format(key_size=128), *REFUSED):
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
    from agent.images.conversion import Watch
    from agent.images.inspect import Declared
    from agent.images.volume import Means, OpenedImage, Target, image_to_volume

    path = small_disk / "partial"
    path.touch()
    fd = os.memfd_create("image")
    os.write(fd, os.urandom(32 * MiB))
    target = Target(path, 32 * MiB, Format(kind), SECRET)  # type: ignore[arg-type]
    with pytest.raises(DestinationFull):
        await image_to_volume(OpenedImage(fd, Declared("raw")), target, Means(), Watch(lambda _: None, asyncio.Event()))
    assert path.stat().st_blocks == 0
    os.close(fd)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    backing = tmp_path / "backing"
    backing.write_bytes(b"of another volume" * 1000)
    os.truncate(backing, 64 * MiB)
    if os.geteuid():
        pytest.skip("needs root")
    made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip("needs loop devices")
    yield Path(made.stdout.strip())
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["luks1", "luks2"])
async def test_devices_become_volumes_too(device: Path, kind: Any) -> None:
    import asyncio

    from agent.images.conversion import Watch
    from agent.images.inspect import Declared
    from agent.images.volume import Means, OpenedImage, Target, image_to_volume

    fmt, content = Format(kind), os.urandom(8 * MiB)
    await make_blank(device, 32 * MiB, fmt, SECRET, iterations=1000)
    await verify_opens(device, SECRET)
    fd = os.memfd_create("image")
    os.write(fd, content)
    image, watch = OpenedImage(fd, Declared("raw")), Watch(lambda _: None, asyncio.Event())
    await image_to_volume(image, Target(device, 32 * MiB, fmt, SECRET), Means(), watch)
    await verify_opens(device, SECRET)
    with device.open("rb") as file:
        window = whole_file(file.fileno())
        opened = unlock(window, header.read(window), SECRET.value.hex().encode())
        file.seek(header_bytes(fmt))
        assert opened.decrypt(file.read(32 * MiB), 0) == content + bytes(24 * MiB)
    watch.cancel.set()
    with pytest.raises(CopyCancelled):
        await image_to_volume(image, Target(device, 32 * MiB, fmt, SECRET), Means(), watch)
    assert subprocess.run(["cryptsetup", "isLuks", device], check=False).returncode == 1
    with pytest.raises(TargetInUse):
        await make_blank(device, 64 * MiB, fmt, SECRET, iterations=1000)
    os.close(fd)
