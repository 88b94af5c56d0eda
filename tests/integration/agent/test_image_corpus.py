"""Every crafted image on the whole way to a volume: refused with its own code, and no file of the host is read."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.base.errors import BrickyardError
from agent.images.conversion import Watch
from agent.images.volume import Means, OpenedImage, Target, image_to_volume
from agent.luks.model import Format, Secret
from tests.support.crafted import Crafted, corpus

MiB = 1 << 20
USABLE = 80 * MiB
CANARY = b"host-file-canary-51c7"
KEY = Secret("symmetric", bytes(range(32)))
_TOUCHED = 0x1 | 0x2 | 0x20  # read, written, opened
_NAMES = [each.name for each in corpus("/host")]
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def watched(path: Path) -> Iterator[list[int]]:
    """What the kernel says was done to a file by anybody while the block ran."""
    notifier = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert notifier >= 0
    assert _libc.inotify_add_watch(notifier, os.fsencode(path), _TOUCHED) >= 0
    seen: list[int] = []
    try:
        yield seen
        while True:
            data = os.read(notifier, 4096)
            seen.extend(struct.unpack_from("=I", data, at + 4)[0] for at in range(0, len(data), 16))
    except BlockingIOError:
        pass
    finally:
        os.close(notifier)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("host") / "secret"
    path.write_bytes(CANARY * 4096)
    return path


@pytest.fixture(scope="module")
def crafted(host: Path) -> dict[str, Crafted]:
    return {each.name: each for each in corpus(str(host))}


def test_there_are_enough_of_them(crafted: dict[str, Crafted]) -> None:
    refused = [each for each in crafted.values() if each.code]
    assert len(refused) >= 80
    assert len({each.code for each in refused}) >= 25


@pytest.mark.parametrize("name", _NAMES)
async def test_refused_by_rule(name: str, crafted: dict[str, Crafted], host: Path, tmp_path: Path) -> None:
    each = crafted[name]
    image, volume = tmp_path / "image", tmp_path / "volume"
    image.write_bytes(each.data)
    if each.length is not None:
        os.truncate(image, max(each.length, len(each.data)))
    volume.write_bytes(b"")
    with watched(host) as touched:
        code, text = await _made(each, image, volume)
    assert touched == []
    assert code == each.code, text
    assert str(host) not in text
    if each.code:
        assert volume.stat().st_size == 0
    else:
        made = volume.read_bytes()
        assert len(made) == USABLE
        assert made.startswith(each.content)
    assert CANARY not in volume.read_bytes()


async def _made(each: Crafted, image: Path, volume: Path) -> tuple[str, str]:
    """(code, sentence with remedy) of the refusal; empty when there was none."""
    fd = os.open(image, os.O_RDONLY)
    encryption = Format() if each.declared.encrypted else None
    target = Target(volume, USABLE, encryption, KEY if encryption else None)
    opened = OpenedImage(fd, each.declared, KEY if each.declared.encrypted else None)
    try:
        await image_to_volume(opened, target, Means(), Watch(lambda _: None, asyncio.Event()))
    except BrickyardError as refused:
        return refused.code, f"{refused} {refused.remedy} {refused.context}"
    finally:
        os.close(fd)
    return "", ""


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")
def test_a_tool_would_have_read_it(host: Path, tmp_path: Path) -> None:
    """The watch sees what it is for: the same image, opened by a tool, shows the host's file to a guest."""
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", host, "-F", "raw", image], check=True)
    with watched(host) as touched:
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, tmp_path / "out"], check=True)
    assert touched
    assert CANARY in (tmp_path / "out").read_bytes()
