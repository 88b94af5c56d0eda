"""Key slots changed by us and judged by cryptsetup and qemu, and the other way round."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.luks import header, slots
from agent.luks.blank import make_blank
from agent.luks.errors import HeaderRefused, LastSlot, NoFreeSlot, WrongSecret
from agent.luks.model import Format, Secret, passphrase
from agent.luks.unlock import unlock
from agent.luks.window import whole_file
from tests.support.images import qemu_img
from tests.support.luks import verify_opens

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("qemu-img") and shutil.which("cryptsetup")), reason="needs qemu-img and cryptsetup"
    ),
    pytest.mark.timeout(900),  # a busy machine gives qemu no CPU time that it could measure
]
MiB = 1 << 20
OLD, NEW, THIRD = (Secret("passphrase", name.encode()) for name in ("old-key", "new-key", "third-key"))
FEW = {"iterations": 1000}
BOTH = pytest.mark.parametrize("kind", ["luks1", "luks2"])
CIPHERS = [("aes-xts-plain64", 256), ("aes-xts-plain64", 512), ("aes-xts-plain", 512), ("aes-cbc-essiv:sha256", 128),
           ("aes-cbc-essiv:sha256", 256), ("aes-cbc-plain64", 192)]  # fmt: skip
# Every other one that cryptsetup makes without a kernel that knows it (XTS of 384 bits it does not).
CIPHERS += [
    pytest.param(f"aes-{mode}", bits, marks=pytest.mark.slow)
    for mode, sizes in (
        ("xts-plain", (256,)),
        ("cbc-essiv:sha256", (192,)),
        ("cbc-plain64", (128, 256)),
        ("cbc-plain", (128, 192, 256)),
        ("cbc-plain64be", (256,)),
        ("cbc-benbi", (256,)),
        ("cbc-null", (256,)),
        ("ecb", (256,)),
        ("ctr-plain64", (128,)),
        ("cbc-essiv:md5", (128,)),
        ("cbc-essiv:sha3-256", (256,)),
    )
    for bits in sizes
]
CIPHERS.append(("camellia-cbc-plain64", 256))
HASHES = ["ripemd160", "blake2b-512", "blake2s-256", "sha3-256", "sha3-512", "sm3"]  # fmt: skip


def cryptsetup(*argv: Any, key: Secret, more: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["cryptsetup", "--batch-mode", *(["--disable-locks"]), *map(str, argv)],
        input=passphrase(key) + more, capture_output=True, check=False, timeout=120,
    )  # fmt: skip


def theirs(path: Path, kind: str, cipher: str, bits: int, *options: str) -> None:
    """A container made by cryptsetup."""
    path.write_bytes(b"")
    os.truncate(path, 24 * MiB)
    made = cryptsetup(
        "luksFormat", "--type", kind, "--cipher", cipher, "--key-size", bits, "--pbkdf", "pbkdf2",
        "--pbkdf-force-iterations", "1000", "--key-file", "-", *options, path, key=OLD,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


def number_of(path: Path) -> int:
    with path.open("rb") as file:
        return len(header.parse(whole_file(file.fileno())).slots)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "volume"


@pytest.fixture
def volume(path: Path) -> Iterator[int]:
    path.touch()
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


@BOTH
@pytest.mark.parametrize(("cipher", "bits"), CIPHERS)
async def test_slots_of_their_containers(volume: int, path: Path, kind: str, cipher: str, bits: int) -> None:
    theirs(
        path,
        kind,
        cipher,
        bits,
        "--hash",
        {128: "sha1", 192: "sha512", 256: "sha256", 512: "sha512"}[bits],
    )
    slots.add(volume, OLD, NEW, **FEW)
    await verify_opens(path, OLD)
    await verify_opens(path, NEW)
    slots.remove(volume, OLD)
    await verify_opens(path, NEW)
    with pytest.raises(WrongSecret):
        await verify_opens(path, OLD)
    slots.rekey(volume, NEW, THIRD, **FEW)
    await verify_opens(path, THIRD)
    with pytest.raises(WrongSecret):
        await verify_opens(path, NEW)
    # What we left is a header that the tool still changes.
    again = path.with_name("again")
    again.write_bytes(passphrase(OLD))
    added = cryptsetup("luksAddKey", "--key-file", "-", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
                       path, again, key=THIRD)  # fmt: skip
    assert added.returncode == 0, added.stderr
    assert number_of(path) == 2
    slots.rekey(volume, OLD, NEW, **FEW)
    assert number_of(path) == 1
    await verify_opens(path, NEW)
    assert cryptsetup("luksDump", path, key=NEW).returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        "",
        "cipher-alg=aes-128",
        "cipher-alg=aes-192",
        "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
        "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64",
        "hash-alg=sha512",
        "hash-alg=sha1",
        "ivgen-alg=plain",
        "cipher-alg=aes-192,ivgen-alg=plain,hash-alg=sha224",
        "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
        "cipher-mode=cbc,ivgen-alg=plain64",
        "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha384",
        "cipher-alg=serpent-256",
        "cipher-alg=serpent-192",
        "cipher-alg=serpent-128,cipher-mode=cbc,ivgen-alg=plain64",
        "cipher-alg=serpent-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
        "cipher-alg=twofish-256",
        "cipher-alg=twofish-192,ivgen-alg=plain",
        "cipher-alg=twofish-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
        "cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=plain64",
        "cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5",
        "cipher-mode=ecb",
        "cipher-mode=ctr",
        "ivgen-alg=essiv,ivgen-hash-alg=sha256",
        "cipher-mode=cbc,ivgen-alg=plain64,hash-alg=ripemd160",
        "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5,hash-alg=md5",
        # With 192 bits and CBC qemu can make none: its key material is no whole number of sectors, which it asserts.
    ],
)
async def test_slots_of_qemus_containers(path: Path, options: str) -> None:
    key = path.with_name("key")
    key.write_bytes(passphrase(OLD))
    secret = ["--object", f"secret,id=s,file={key}"]
    wanted = ",".join(filter(None, ["key-secret=s", "iter-time=10", options]))
    qemu_img("create", "-q", "-f", "luks", *secret, "-o", wanted, path, "4M")
    volume = os.open(path, os.O_RDWR)
    slots.rekey(volume, OLD, NEW, **FEW)
    key.write_bytes(passphrase(NEW))
    node = f"driver=luks,file.filename={path},key-secret=s"
    shown = subprocess.run(["qemu-img", "info", *secret, "--image-opts", node], capture_output=True, check=False)
    assert shown.returncode == 0, shown.stderr
    out = path.with_name("clear")
    subprocess.run(["qemu-img", "convert", *secret, "--image-opts", node, "-O", "raw", out], check=True)
    window = whole_file(volume)
    found = header.read(window)
    opened = unlock(window, found, passphrase(NEW))
    assert opened.decrypt(window.exact(found.details.payload_offset, 4 * MiB), 0) == out.read_bytes()
    os.close(volume)


@BOTH
@pytest.mark.parametrize("name", HASHES)
async def test_hashes_of_their_containers(volume: int, path: Path, kind: str, name: str) -> None:
    theirs(path, kind, "aes-xts-plain64", 512, "--hash", name)
    slots.rekey(volume, OLD, NEW, **FEW)
    await verify_opens(path, NEW)


WRITTEN = [
    ("serpent-xts-plain64", 512), ("serpent-xts-plain", 256), ("serpent-cbc-essiv:sha256", 256),
    ("serpent-cbc-plain64", 128), ("twofish-xts-plain64", 512), ("twofish-xts-plain64", 384),
    ("twofish-cbc-plain", 256), ("twofish-cbc-essiv:sha256", 256), ("cast5-cbc-plain64", 128),
    ("cast5-cbc-essiv:md5", 128),
    ("aes-cbc-essiv:sha256", 256), ("aes-cbc-plain64", 128), ("aes-xts-plain", 512), ("aes-xts-plain64", 384),
    ("aes-xts-essiv:sha256", 512),
]  # fmt: skip


@pytest.mark.parametrize(("cipher", "bits"), WRITTEN)
async def test_qemu_reads_what_we_write_and_writes_what_we_read(path: Path, cipher: str, bits: int) -> None:
    fmt, clear, key = Format("luks1", cipher, bits), os.urandom(2 * MiB), path.with_name("key")
    path.touch()
    await make_blank(path, 2 * MiB, fmt, OLD, **FEW)
    with path.open("r+b") as file:
        window = whole_file(file.fileno())
        opened = unlock(window, header.read(window), passphrase(OLD))
        data = bytearray(clear)
        opened.cipher().encrypt(memoryview(data), 0)
        os.pwrite(file.fileno(), data, opened.header.details.payload_offset)
        key.write_bytes(passphrase(OLD))
        out, more = path.with_name("clear"), path.with_name("more")
        qemu = ["qemu-img", "convert", "--object", f"secret,id=s,file={key}"]
        node = f"driver=luks,file.filename={path},key-secret=s"
        subprocess.run([*qemu, "--image-opts", node, "-O", "raw", out], check=True, timeout=120)
        assert out.read_bytes() == clear
        more.write_bytes(clear[::-1])
        subprocess.run([*qemu, "-n", "--target-image-opts", "-f", "raw", more, node], check=True, timeout=120)
        assert opened.decrypt(window.exact(opened.header.details.payload_offset, 2 * MiB), 0) == clear[::-1]


@BOTH
@pytest.mark.parametrize("bits", [256, 512])
async def test_ours_in_their_hands(volume: int, path: Path, kind: Any, bits: int) -> None:
    await make_blank(path, 8 * MiB, Format(kind, key_size=bits), OLD, **FEW)
    shown = cryptsetup("luksDump", path, key=OLD)
    assert shown.returncode == 0, shown.stderr
    assert b"xts-plain64" in shown.stdout
    if kind == "luks1":
        info = subprocess.run(["qemu-img", "info", "-f", "luks", path], capture_output=True, check=False)
        assert b"8 MiB" in info.stdout, info.stderr
    new = path.with_name("new")
    new.write_bytes(passphrase(NEW))
    few = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    assert cryptsetup("luksChangeKey", "--key-file", "-", *few, path, new, key=OLD).returncode == 0
    slots.rekey(volume, NEW, THIRD, **FEW)
    await verify_opens(path, THIRD)
    kept = path.with_name("kept")
    assert cryptsetup("luksHeaderBackup", path, "--header-backup-file", kept, key=OLD).returncode == 0
    assert kept.read_bytes()[: 512 << 10] == slots.backup(volume)[: 512 << 10]
    assert cryptsetup("luksHeaderRestore", path, "--header-backup-file", kept, key=OLD).returncode == 0
    await verify_opens(path, THIRD)
    assert slots.erase(volume)
    assert not slots.erase(volume)
    with pytest.raises(HeaderRefused):
        slots.rekey(volume, THIRD, OLD, **FEW)
    assert cryptsetup("isLuks", path, key=OLD).returncode == 1
    assert cryptsetup("repair", path, key=OLD).returncode != 0


@BOTH
@pytest.mark.parametrize("cipher", ["aes-xts-plain64", "twofish-xts-plain64"])
async def test_a_raw_look_after_a_header_was_destroyed(volume: int, path: Path, kind: Any, cipher: str) -> None:
    await make_blank(path, 20 * MiB, Format(kind, cipher), OLD, **FEW)
    slots.add(volume, OLD, NEW, **FEW)
    window = whole_file(volume)
    opened = unlock(window, header.read(window), passphrase(OLD))
    start, content = opened.header.details.payload_offset, bytearray(os.urandom(MiB))
    clear, at = bytes(content), 18 * MiB
    opened.cipher().encrypt(memoryview(content), at // 512)
    os.pwrite(volume, content, start + at)
    kept = slots.backup(volume)
    assert slots.erase(volume)
    raw = path.read_bytes()
    sectors = {raw[place : place + 512] for place in range(0, len(raw), 512)}
    before = (kept[place : place + 512] for place in range(0, len(kept), 512))
    assert not any(sector in sectors for sector in before if sector.strip(b"\0")), "of no sector of it"
    for told in (opened.master_key, opened.header.uuid.encode(), header.MAGIC, b"SKUL\xba\xbe", clear[:512]):
        assert told not in raw
    for secret in (OLD, NEW):
        with pytest.raises(HeaderRefused):
            slots.rekey(volume, secret, THIRD, **FEW)
        assert cryptsetup("open", "--test-passphrase", "--type", "luks", "--key-file", "-", path, key=secret).returncode
    assert cryptsetup("repair", path, key=OLD).returncode
    # The content itself stays until its place is used again: whoever kept the header and a key opens it.
    assert raw[start + at : start + at + MiB] == content
    slots.restore(volume, kept)
    assert unlock(window, header.read(window), passphrase(NEW)).decrypt(bytes(content), at // 512) == clear


@pytest.mark.parametrize("kind", ["luks1", pytest.param("luks2", marks=pytest.mark.slow)])
async def test_all_slots_in_use(volume: int, path: Path, kind: Any) -> None:
    await make_blank(path, MiB, Format(kind), OLD, **FEW)
    room = 7 if kind == "luks1" else 31
    added = {slots.add(volume, OLD, Secret("symmetric", bytes([number])), **FEW) for number in range(room)}
    assert len(added) == room
    with pytest.raises(NoFreeSlot):
        slots.add(volume, OLD, THIRD, **FEW)
    assert slots.add(volume, OLD, Secret("symmetric", bytes([3])), **FEW) in added
    await verify_opens(path, Secret("symmetric", bytes([6])))
    slots.rekey(volume, OLD, NEW, **FEW)
    assert number_of(path) == 1
    await verify_opens(path, NEW)
    with pytest.raises(LastSlot):
        slots.remove(volume, NEW)
    slots.remove(volume, OLD)
    with pytest.raises(WrongSecret):
        slots.rekey(volume, OLD, THIRD, **FEW)
    await verify_opens(path, NEW)


@BOTH
async def test_a_kill_at_any_write_leaves_a_volume_that_opens(
    volume: int, path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write of a rekey in turn is the last one, torn in its middle; the same call again then finishes."""
    from agent.luks import stored, write1, write2

    class Killed(Exception):
        pass

    await make_blank(path, MiB, Format(kind), OLD, **FEW)
    slots.add(volume, OLD, THIRD, **FEW)
    whole, real, at = path.read_bytes(), stored.put, 0
    while True:
        path.write_bytes(whole)
        left = at

        def put(fd: int, *parts: stored.Put) -> None:
            nonlocal left
            if left == 0:
                # A disk writes whole sectors.
                for part in parts:
                    real(fd, stored.Put(part.offset, part.data[: len(part.data) // 2 // 512 * 512]))
                raise Killed
            left -= 1
            real(fd, *parts)

        for module in (slots, write1, write2):
            monkeypatch.setattr(module, "put", put)
        try:
            slots.rekey(volume, OLD, NEW, **FEW)
            break
        except Killed:
            pass
        for module in (slots, write1, write2):
            monkeypatch.setattr(module, "put", real)
        slots.rekey(volume, OLD, NEW, **FEW)
        assert number_of(path) == 1
        await verify_opens(path, NEW)
        at += 1
    assert at >= 5
