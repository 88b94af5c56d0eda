"""The source: a file system with real files and a canary in each MiB, packed into encrypted images, all in memory."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from demo.place import DemoFailed, Place
from demo.tools import by_fd, run

MiB = 1 << 20
SOURCE_BYTES = 256 * MiB
_FILE_BYTES = 4 * MiB
_FILES = 27
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """The clear image: where it lies, its sha256, and what each of its canaries begins with."""

    path: Path
    sha256: str
    canary: bytes
    count: int


@dataclass(slots=True)
class Secret:
    """A key and its type as users register it."""

    type: str
    value: bytes = field(repr=False)

    @property
    def passphrase(self) -> bytes:
        """What opens LUKS: a passphrase as it is, any other key as hexadecimal digits."""
        return self.value if self.type == "passphrase" else self.value.hex().encode()


@dataclass(slots=True)
class Packed:
    """An encrypted image as it is uploaded; `id` and `key_id` are filled by the registration."""

    path: Path
    secret: Secret
    size: int
    id: str = ""
    key_id: str = ""


def make_source(place: Place) -> Source:
    """An ext4 of 256 MiB with sources of Python and random data, and a canary in every MiB of it."""
    canaries = Canaries(f"brickyard-canary-{secrets.token_hex(8)}-".encode())
    tree = place.memory / "tree"
    _fill(tree, canaries)
    path = place.memory / "clear.img"
    path.touch(mode=0o600)
    os.truncate(path, SOURCE_BYTES)
    options = ("-q", "-F", "-b", str(_BLOCK), "-N", "1024", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=0")
    run("mkfs.ext4", *options, "-d", str(tree), str(path))
    shutil.rmtree(tree)
    count = _canary_in_each_mib(path, canaries)
    run("e2fsck", "-f", "-n", str(path))
    with path.open("rb") as file:
        return Source(path, hashlib.file_digest(file, "sha256").hexdigest(), canaries.prefix, count)


def pack(place: Place, source: Source) -> tuple[Packed, Packed]:
    """Two encrypted qcow2 of the source: one for a passphrase, one for a key. Half of the source is allocated."""
    wanted = (
        ("passphrase", Secret("passphrase", f"Demo-pässphrase {secrets.token_hex(8)}".encode())),
        ("symmetric", Secret("symmetric", secrets.token_bytes(32))),
    )
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda each: _packed(place.memory / f"{each[0]}.qcow2", source, each[1]), wanted)
    share = first.size / SOURCE_BYTES
    if not 0.4 < share < 0.6:
        raise DemoFailed(f"{share:.0%} of the source is allocated instead of half")
    return first, second


class Canaries:
    """Texts that occur nowhere else, all beginning with `prefix`."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix, self._made = prefix, 0

    def next(self) -> bytes:
        self._made += 1
        return self.prefix + f"{self._made:06d}-{secrets.token_hex(4)}".encode()


def _fill(tree: Path, canaries: Canaries) -> None:
    library = Path(os.__file__).parent
    (tree / "python").mkdir(parents=True)
    for file in sorted(library.glob("*.py")):
        (tree / "python" / file.name).write_bytes(file.read_bytes() + b"\n# " + canaries.next() + b"\n")
    (tree / "data").mkdir()
    for number in range(_FILES):
        data = bytearray(os.urandom(_FILE_BYTES))
        for at in range(0, _FILE_BYTES, MiB // 4):
            text = canaries.next()
            data[at + 100 : at + 100 + len(text)] = text
        (tree / "data" / f"{number:02d}.bin").write_bytes(data)


def _canary_in_each_mib(path: Path, canaries: Canaries) -> int:
    """Put one into a free block of each MiB that has none; returns how many there are in all. Each MiB has one then."""
    free = _free_blocks(path)
    total = 0
    with path.open("r+b") as file:
        for start in range(0, SOURCE_BYTES, MiB):
            found = os.pread(file.fileno(), MiB, start).count(canaries.prefix)
            if not found:
                blocks = range(start // _BLOCK, (start + MiB) // _BLOCK)
                # The first kilobyte belongs to boot loaders, not to the file system.
                block = next((number for number in reversed(blocks) if number in free), None if start else 0)
                if block is None:
                    raise DemoFailed(f"no room for a canary in the MiB at {start}")
                os.pwrite(file.fileno(), canaries.next(), block * _BLOCK + 512)
                found = 1
            total += found
    return total


def _free_blocks(path: Path) -> set[int]:
    free: set[int] = set()
    for line in re.findall(r"^  Free blocks: (.+)$", run("dumpe2fs", str(path)), re.MULTILINE):
        for item in line.split(", "):
            first, _, last = item.partition("-")
            free.update(range(int(first), int(last or first) + 1))
    return free


def _packed(path: Path, source: Source, secret: Secret) -> Packed:
    with by_fd(secret.passphrase) as fd:
        options = "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10"
        run(
            "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options,
            "--object", f"secret,id=s0,file=/dev/fd/{fd}", str(source.path), str(path), fds=(fd,),
        )  # fmt: skip
    return Packed(path, secret, path.stat().st_size)
