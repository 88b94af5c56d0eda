"""Images changed by a fuzzer that follows the lines it reaches: inspected, then read whole as a volume would be made.

Whatever a stranger's image says, it is refused by rule, or gives as many bytes as it says, out of its own file.
"""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest

import agent.images
from agent.base.errors import BrickyardError
from agent.copying.files import Side
from agent.copying.model import by_fd
from agent.images.disk import Disk
from agent.images.inspect import Declared, Limits, inspect
from agent.luks.sectors import sectors
from agent.luks.window import whole_file
from tests.support.fuzzing import anything, fuzz
from tests.unit.agent.images.test_disk import KEY, Image

LIMIT = 256 << 10
HERE = Path(agent.images.__file__).parent
FOLLOWED = [HERE / name for name in ("qcow2.py", "disk.py", "guest.py", "inspect.py")]
WHAT = ["data", "hole", "compressed", "zero", "data", "compressed"]


def in_tables(chance: random.Random, data: bytearray) -> None:
    """The header and both tables, which a seed has in its first pieces; seldom what lies behind."""
    if chance.randrange(8) == 0:
        anything(chance, data)
        return
    front = bytearray(data[: 3 << 14])
    for _ in range(chance.choice((1, 1, 2, 4))):
        anything(chance, front)
    data[: 3 << 14] = front[: 3 << 14].ljust(3 << 14, b"\0")


@pytest.mark.parametrize("rounds", [400, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("encrypted", [False, True])
def test_no_image_makes_a_reader_fail(encrypted: bool, rounds: int) -> None:
    seeds = [Image(14, WHAT, number, encrypted, zstd=number == 1, extended=number == 2).build() for number in range(3)]
    reached: set[str] = set()

    def check(data: bytes) -> None:
        fd = os.memfd_create("image")
        try:
            os.write(fd, data)
            try:
                reached.add(read_whole(fd, encrypted=encrypted))
            except BrickyardError:
                reached.add("refused")
        finally:
            os.close(fd)

    kept = fuzz(check, seeds, in_tables, of=FOLLOWED, rounds=rounds)
    assert kept > 2, "it finds its way into the code"
    assert {"refused", "read"} <= reached


def read_whole(fd: int, *, encrypted: bool) -> str:
    """The header of an encrypted one is not its matter: the key is taken as known."""
    if encrypted:
        from agent.images import qcow2

        image = qcow2.parse(whole_file(fd))
        if image.virtual_size > LIMIT:
            return "too large"
    else:
        found = inspect(fd, Declared("qcow2"), Limits(max_virtual=LIMIT)).qcow2
        assert found is not None
        image = found
    below = Side(by_fd(fd), os.O_RDONLY, direct=False)
    try:
        disk = Disk(whole_file(fd), below, image, sectors("aes-xts-plain64", KEY) if encrypted else None)
        assert disk.size() == image.virtual_size <= LIMIT
        view = memoryview(mmap.mmap(-1, LIMIT))
        assert disk.read(view, 0, disk.size()) == disk.size()
        for begin, end in disk.extents(0, disk.size()):
            assert 0 <= begin < end <= disk.size()
            assert disk.read(view, begin, end - begin) == end - begin
    finally:
        below.close()
    return "read"
