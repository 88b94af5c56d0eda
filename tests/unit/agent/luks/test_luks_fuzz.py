"""Headers of either version, changed by a fuzzer that follows the lines it reaches: read, opened, and written to.

Whatever a stranger's header says, it is refused by rule or opens with its own master key; and a change of its key slots
that is refused, or done, leaves a volume that its key opens.
"""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

import agent.luks
from agent.base.errors import BrickyardError
from agent.luks import header, slots
from agent.luks.container import create, reveal
from agent.luks.errors import HeaderRefused, WrongSecret
from agent.luks.model import Format, KdfLimits, Secret, passphrase
from agent.luks.unlock import unlock
from agent.luks.window import whole_file
from tests.support.fuzzing import a_word, anything, fuzz

FIRST, SECOND = Secret("passphrase", b"the key"), Secret("passphrase", b"another")
LIMITS = KdfLimits(slot_iterations=3000, total_iterations=12_000, memory_bytes=1 << 20)
MiB = 1 << 20
HEAD, BINARY = 16384, 4096
HERE = Path(agent.luks.__file__).parent
# Not what loops over key material: following that takes most of the time, and shows nothing.
FOLLOWED = [
    path for path in HERE.glob("*.py") if path.name not in {"antiforensic.py", "xts.py", "sectors.py", "cbc.py"}
]


def container(kind: str) -> tuple[bytes, bytes]:
    """The first bytes of a volume of 1 MiB with two keys in use, and its master key."""
    fd, fmt = os.memfd_create("container"), Format(kind)  # type: ignore[arg-type]
    try:
        os.ftruncate(fd, 17 * MiB)
        made = create(fd, fmt, FIRST, iterations=1000)
        reveal(fd, fmt)
        slots.add(fd, FIRST, SECOND, iterations=1000)
        return os.pread(fd, 700_000, 0), made.master_key
    finally:
        os.close(fd)


def in_luks1(chance: random.Random, data: bytearray) -> None:
    """The header's 592 bytes; seldom the key material."""
    head = bytearray(data[:592])
    if chance.randrange(20) == 0:
        anything(chance, data)
    else:
        anything(chance, head)
        data[:592] = head[:592].ljust(592, b"\0")


def in_luks2(chance: random.Random, data: bytearray) -> None:
    """One copy of the metadata or both, mostly with a checksum that fits again; seldom the key material."""
    if chance.randrange(20) == 0:
        anything(chance, data)
        return
    places = chance.choice(((0,), (HEAD,), (0, HEAD)))
    text, binary = bytes(data[BINARY:HEAD]).rstrip(b"\0"), chance.randrange(4) == 0
    new = a_word(chance, text)[: HEAD - BINARY].ljust(HEAD - BINARY, b"\0")
    fits = chance.randrange(10) > 0
    for at in places:
        if binary:
            front = bytearray(data[at : at + 512])
            anything(chance, front)
            data[at : at + 512] = front[:512].ljust(512, b"\0")
        else:
            data[at + BINARY : at + HEAD] = new
        if fits:
            data[at + 448 : at + 512] = bytes(64)
            data[at + 448 : at + 480] = hashlib.sha256(data[at : at + HEAD]).digest()


def opened(fd: int, secret: Secret) -> bytes:
    window = whole_file(fd)
    return unlock(window, header.read(window, LIMITS), passphrase(secret)).master_key


@pytest.mark.parametrize("rounds", [150, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_no_header_makes_a_reader_or_a_writer_fail(kind: str, rounds: int) -> None:
    seed, key = container(kind)
    reached: set[str] = set()

    def check(data: bytes) -> None:
        fd = os.memfd_create("changed")
        try:
            os.write(fd, data)
            os.ftruncate(fd, 17 * MiB)
            try:
                found = opened(fd, FIRST)
            except (HeaderRefused, WrongSecret):
                reached.add("refused")
                return
            assert found == key
            reached.add("opened")
            try:
                slots.rekey(fd, FIRST, Secret("passphrase", b"a third"), iterations=1000)
            except BrickyardError:
                reached.add("not written")
                assert opened(fd, FIRST) == key
                return
            reached.add("written")
            assert opened(fd, Secret("passphrase", b"a third")) == key
            with pytest.raises((HeaderRefused, WrongSecret)):
                opened(fd, FIRST)
        finally:
            os.close(fd)

    kept = fuzz(check, [seed], in_luks1 if kind == "luks1" else in_luks2, of=FOLLOWED, rounds=rounds)
    assert kept > 2, "it finds its way into the code"
    assert {"refused", "opened", "written"} <= reached
