"""A conversion that is cancelled leaves nothing; one that is killed goes on where it was."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.copying.errors import CopyCancelled
from agent.images.resume import Resume
from agent.luks import header
from agent.luks.errors import NotLuks
from agent.luks.model import Format, device_bytes, header_bytes, passphrase
from agent.luks.unlock import unlock
from agent.luks.window import whole_file
from tests.integration.agent.images_to_volume.making import (
    ENCRYPTED_QCOW2,
    IMAGE_BYTES,
    PASSPHRASE,
    SYMMETRIC,
    USABLE,
    VOLUME_KEY,
    Images,
    MiB,
    Runner,
    needs_tools,
)
from tests.support.luks import verify_opens

pytestmark = needs_tools


async def test_cancel_ends_all_and_empties_the_file(images: Images, runner: Runner) -> None:
    image = images.get(PASSPHRASE)

    async def work() -> None:
        await runner(image, ENCRYPTED_QCOW2, PASSPHRASE, encryption=Format(), usable=4096 * MiB)

    task = asyncio.create_task(work())
    await asyncio.wait_for(runner.heard.wait(), 60)
    runner.cancel.set()
    with pytest.raises(CopyCancelled):
        await task
    assert runner.path.stat().st_size == 0


RESUMED = """
import asyncio, os, sys
from pathlib import Path
from agent.images.inspect import Declared
from agent.images.resume import Resume
from agent.images.resume import NEVER, Resume
from agent.images.volume import Means, OpenedImage, Target, image_to_volume
from agent.images.conversion import Watch
from agent.luks.model import Format, Secret
key = Secret("symmetric", bytes(range(32)))
image = OpenedImage(os.open(sys.argv[1], 0), Declared("qcow2", "bare", True), key)
target = Target(Path(sys.argv[2]), 320 << 20, Format(sys.argv[3]), key)
watch = Watch(lambda progress: None, asyncio.Event())
async def save(file, done):
    print(file, done, flush=True)
    if done >= 128 << 20:
        await asyncio.Event().wait()
asyncio.run(image_to_volume(image, target, Means(), watch, Resume(save)))
"""


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
async def test_a_killed_stream_goes_on_from_its_checkpoint(images: Images, runner: Runner, kind: Any) -> None:
    image, fmt = images.get(SYMMETRIC), Format(kind)
    argv = [sys.executable, "-c", RESUMED, str(image), str(runner.path), kind]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[4], text=True) as agent:
        assert agent.stdout is not None
        notes = [agent.stdout.readline().rpartition(" ") for _ in range(2)]
        agent.kill()
    (file, _, first), (_, _, done) = notes
    assert 0 < int(first) < int(done) < 320 * MiB
    with pytest.raises(NotLuks), runner.path.open("rb") as half:
        header.parse(whole_file(half.fileno()))
    # Bytes before the checkpoint are not written again: blank some of them, to be found blank.
    blank = runner.path.read_bytes()[header_bytes(fmt) + 64 * MiB :][:4096]
    with runner.path.open("r+b") as half:
        half.seek(header_bytes(fmt) + 64 * MiB)
        half.write(bytes(4096))
    saved: list[tuple[str, int]] = []

    async def save(file: str, done: int) -> None:
        saved.append((file, done))

    resume = Resume(save, file, int(done))
    await runner(image, ENCRYPTED_QCOW2, SYMMETRIC, encryption=fmt, volume_secret=SYMMETRIC, usable=320 * MiB,
                 resume=resume)  # fmt: skip
    assert runner.reports[0].done >= int(done)
    assert saved[-1] == (file, 320 * MiB)
    with runner.path.open("r+b") as made:
        made.seek(header_bytes(fmt) + 64 * MiB)
        assert made.read(4096) == bytes(4096)
        made.seek(header_bytes(fmt) + 64 * MiB)
        made.write(blank)
    await verify_opens(runner.path, SYMMETRIC)
    with runner.path.open("rb") as made:
        window = whole_file(made.fileno())
        clear = unlock(window, header.read(window), passphrase(SYMMETRIC))
        made.seek(header_bytes(fmt))
        assert clear.decrypt(made.read(), 0) == images.data + bytes(320 * MiB - IMAGE_BYTES)
    # Another file, or another secret: nothing of it is believed.
    for other in (Resume(save, "another", 320 * MiB), resume):
        await runner(image, ENCRYPTED_QCOW2, SYMMETRIC, encryption=fmt, resume=other)
        await verify_opens(runner.path, VOLUME_KEY)
        assert runner.path.stat().st_size == device_bytes(USABLE, fmt)
