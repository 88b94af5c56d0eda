"""The local connector on real loop devices: bytes through the device, every way of being asked twice, nothing left."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.connectors import local
from agent.connectors.errors import DetachIncomplete, DeviceMismatch, NotAttached
from agent.host import udev
from agent.host.openers import openers
from agent.privsep import block, client, contexts, crypt, limits, mapper, start
from agent.privsep.errors import CryptUnavailable, DeviceForeign, VerbRefused
from tests.integration.agent.privsep_child import bound, run, traversable

SIZE = 4 << 20
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="no loop devices here"),
]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    before = limits.current()
    folder = tmp_path / "root"
    (folder / "volumes").mkdir(parents=True)
    start.start_direct([folder])
    yield folder
    limits.use(before)
    client.set_mode("none")
    for context in contexts.BY_NAME.values():
        context.set_client_mode(True)


@pytest.fixture(autouse=True)
async def nothing_left(root: Path) -> AsyncIterator[None]:
    before = bound(root)
    yield
    for device in await local.current():
        if device.backing_file.startswith(str(root)):
            await local.detach(device.attachment_id)
    assert bound(root) == before


def _volume(root: Path, size: int = SIZE) -> Path:
    path = root / "volumes" / str(uuid.uuid4())
    with path.open("wb") as file:
        file.truncate(size)
    return path


def _id() -> str:
    return str(uuid.uuid4())


async def test_bytes_written_to_the_device_are_in_the_file(root: Path) -> None:
    path, attachment = _volume(root), _id()
    before = bound(root)
    device = await local.attach(path, attachment, SIZE)
    assert (device.size, device.raw, device.raw_device, device.read_only) == (SIZE, False, device.device, False)
    sysfs_diskseq = Path(f"/sys/block/{Path(device.device).name}/diskseq")
    assert device.diskseq == (int(sysfs_diskseq.read_text()) if sysfs_diskseq.exists() else None)
    with open(device.device, "r+b", buffering=0) as out:
        out.seek(1 << 20)
        out.write(b"brickyard" * 1000)
    assert await local.detach(attachment)
    assert bound(root) == before
    assert path.read_bytes()[1 << 20 : (1 << 20) + 9000] == b"brickyard" * 1000


async def test_attaching_twice_is_one_device(root: Path) -> None:
    path, attachment = _volume(root), _id()
    first = await local.attach(path, attachment, SIZE)
    assert await local.attach(path, attachment, SIZE) == first
    assert [device for device in await local.current() if device.attachment_id == attachment] == [first]
    assert await local.detach(attachment)
    assert not await local.detach(attachment)


async def test_many_at_once(root: Path) -> None:
    import asyncio

    pairs = [(_volume(root), _id()) for _ in range(12)]
    wanted = pairs * 2
    devices = await asyncio.gather(*(local.attach(path, attachment, SIZE) for path, attachment in wanted))
    assert len({device.device for device in devices}) == len(pairs)
    assert all(device.backing_file == str(path) for device, (path, _) in zip(devices, wanted, strict=True))
    assert all(await asyncio.gather(*(local.detach(attachment) for _, attachment in pairs)))


async def test_read_only_can_not_be_written(root: Path) -> None:
    attachment = _id()
    path = _volume(root)
    device = await local.attach(path, attachment, SIZE, read_only=True)
    assert device.read_only
    with pytest.raises(OSError, match=r".*"), open(device.device, "r+b", buffering=0) as out:
        out.write(b"x")
    with pytest.raises(DeviceForeign, match="another mode"):
        await local.attach(path, attachment, SIZE, read_only=False)


async def test_the_size_must_be_the_promised_one(root: Path) -> None:
    path, attachment = _volume(root), _id()
    with pytest.raises(DeviceMismatch, match="not 512"):
        await local.attach(path, attachment, 512)
    with pytest.raises(DeviceMismatch, match="None bytes"):
        await local.attach(root / "volumes" / _id(), attachment, 512)
    with pytest.raises(NotAttached):
        await local.verify(path, attachment, SIZE)


async def test_an_attachment_never_changes_its_file(root: Path) -> None:
    attachment = _id()
    first = await local.attach(_volume(root), attachment, SIZE)
    with pytest.raises(DeviceForeign, match="not /"):
        await local.attach(_volume(root), attachment, SIZE)
    mine = [one for one in await local.current() if one.attachment_id == attachment]
    assert [one.backing_file for one in mine] == [first.backing_file]


async def test_a_mounted_device_stays_and_its_mount_is_named(root: Path, tmp_path: Path) -> None:
    path, attachment = _volume(root), _id()
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    device = await local.attach(path, attachment, SIZE)
    place = tmp_path / "mnt"
    place.mkdir()
    subprocess.run(["mount", device.device, place], check=True)
    try:
        with pytest.raises(DetachIncomplete, match=f"mounted on {place}"):
            await local.detach(attachment)
        (place / "still").write_text("works")
    finally:
        subprocess.run(["umount", place], check=True)
    assert await local.detach(attachment)


async def test_an_open_device_stays_until_it_is_closed(root: Path) -> None:
    path, attachment = _volume(root), _id()
    device = await local.attach(path, attachment, SIZE)
    with open(device.device, "rb") as holder:
        with pytest.raises(DetachIncomplete, match="a process has it open"):
            await local.detach(attachment)
        holder.read(512)
        assert [
            one for one in openers(device.device.removeprefix("/dev/")) if one.startswith(f"process {os.getpid()} (")
        ]
    # the refused detach must not have armed the kernel to do it later
    assert await local.verify(path, attachment, SIZE) == device
    assert await local.detach(attachment)


async def test_who_has_it_open_is_cut_off_by_force(root: Path) -> None:
    path, attachment, other = _volume(root), _id(), _id()
    device = await local.attach(path, attachment, SIZE)
    with open(device.device, "r+b", buffering=0) as holder:
        holder.write(b"kept" * 1024)
        assert await local.detach(attachment, force=True)
        holder.seek(0)
        with pytest.raises(OSError):
            os.write(holder.fileno(), b"lost" * 1024)
        assert attachment not in {one.attachment_id for one in await local.current()}
        assert not await local.detach(attachment, force=True)
        again = await local.attach(path, other, SIZE)
        assert again.device != device.device
        assert Path(again.device).read_bytes()[:8192] == b"kept" * 1024 + bytes(4096)
        assert await local.detach(other)
        os.truncate(path, 2 * SIZE)  # a file that grows gives nothing back to it
        holder.seek(0)
        assert holder.read(512) == b""
        assert not await client.call(block.loop_cut, int(device.device[9:]), device.diskseq, attachment)
    assert path.read_bytes()[4096:] == bytes(2 * SIZE - 4096)


async def test_a_mounted_one_is_cut_off_by_force(root: Path) -> None:
    path, attachment, place = _volume(root, 32 << 20), _id(), root / "mounted"
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    device = await local.attach(path, attachment, 32 << 20)
    subprocess.run(["mount", device.device, place], check=True)
    try:
        with pytest.raises(DetachIncomplete, match="mounted on"):
            await local.detach(attachment)
        assert await local.detach(attachment, force=True)
        written = subprocess.run(["dd", "if=/dev/zero", f"of={place}/lost", "count=8", "conv=fsync"], check=False)
        assert written.returncode
        assert attachment not in {one.attachment_id for one in await local.current()}
    finally:
        subprocess.run(["umount", place], check=True)


async def test_a_grown_file_grows_its_device(root: Path) -> None:
    path, attachment = _volume(root), _id()
    await local.attach(path, attachment, SIZE)
    os.truncate(path, 2 * SIZE)
    assert (await local.resize(attachment, 2 * SIZE)).size == 2 * SIZE
    with pytest.raises(DeviceMismatch, match="after the resize"):
        await local.resize(attachment, 3 * SIZE)
    with pytest.raises(NotAttached):
        await local.resize(_id(), SIZE)


async def test_another_device_is_never_detached(root: Path) -> None:
    attachment = _id()
    device = await local.attach(_volume(root), attachment, SIZE)
    number = int(device.device.removeprefix("/dev/loop"))
    assert not await client.call(block.loop_detach, number, device.diskseq, _id())
    assert not await client.call(block.loop_detach, number, (device.diskseq or 0) + 1, attachment)
    assert [found.attachment_id for found in await local.current()].count(attachment) == 1


async def test_a_loop_device_of_someone_else_is_left_alone(root: Path) -> None:
    path = _volume(root)
    device = subprocess.run(
        ["losetup", "-f", "--show", path], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        assert device not in [found.device for found in await local.current()]
        number = int(device.removeprefix("/dev/loop"))
        assert not await client.call(block.loop_detach, number, None, _id())
        assert bound(root)[Path(device).name] == str(path)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
        if udev.udevd_runs():
            subprocess.run(["udevadm", "settle"], check=True)  # the kernel waits for the last that has it open


async def test_outside_of_the_roots_nothing_is_attached(root: Path, tmp_path: Path) -> None:
    path = tmp_path / _id()
    path.write_bytes(bytes(512))
    with pytest.raises(VerbRefused, match="none of the allowed roots"):
        await local.attach(path, _id(), 512)
    (root / "volumes" / "link").symlink_to(tmp_path)
    with pytest.raises(VerbRefused, match="none of the allowed roots"):
        await local.attach(root / "volumes" / "link" / path.name, _id(), 512)


@pytest.mark.skipif(mapper.dm_crypt_available(), reason="this kernel has dm-crypt")
async def test_encrypted_without_dm_crypt_is_the_raw_device(root: Path) -> None:
    attachment = _id()
    device = await local.attach(_volume(root), attachment, SIZE, encrypted=True, passphrase=b"secret")
    assert device.raw
    assert device.device == device.raw_device
    with pytest.raises(CryptUnavailable, match="no device-mapper"):
        await client.call(crypt.crypt_open, device.device, device.diskseq, attachment, b"secret", False)


@pytest.mark.skipif(not mapper.dm_crypt_available(), reason="this kernel has no dm-crypt")
async def test_encrypted_is_opened_grown_and_closed(root: Path) -> None:
    attachment, path = _id(), _volume(root, 32 << 20)
    fast = ["--pbkdf-force-iterations", "1000", "--pbkdf", "pbkdf2", "--batch-mode", "--key-file", "-"]
    subprocess.run(["cryptsetup", "luksFormat", "--type", "luks2", *fast, path], input=b"secret", check=True)
    device = await local.attach(path, attachment, 32 << 20, encrypted=True, passphrase=b"secret")
    assert not device.raw
    assert device.device == f"/dev/mapper/brickyard-{attachment}"
    os.truncate(path, 40 << 20)
    assert (await local.resize(attachment, 40 << 20, b"secret")).size == device.size + (8 << 20)
    assert await local.detach(attachment)


def test_a_killed_agent_finds_its_device_again() -> None:
    code = """
dropped()
from agent.connectors import local
ident = str(uuid.uuid4())
path = volume()
asyncio.run(local.attach(path, ident, 1 << 20))
told(ident=ident, path=str(path))
"""
    again = """
dropped()
from agent.connectors import local
[path] = (base / "root" / "volumes").iterdir()
async def main():
    [device] = [found for found in await local.current() if found.backing_file == str(path)]
    same = await local.attach(path, device.attachment_id, 1 << 20)
    return device.attachment_id, same == device, await local.detach(device.attachment_id)
ident, same, detached = asyncio.run(main())
told(ident=ident, same=same, detached=detached)
"""
    with traversable() as base:
        first = run(code, base)
        assert list(bound(base).values()) == [first["path"]]
        assert run(again, base) == {"ident": first["ident"], "same": True, "detached": True}
        assert bound(base) == {}


@pytest.mark.skipif(not mapper.dm_crypt_available(), reason="this kernel has no dm-crypt")
def test_the_daemon_with_few_capabilities_opens_and_closes_luks() -> None:
    code = """
import subprocess
path, ident = volume(32 << 20), str(uuid.uuid4())
fast = ["--pbkdf-force-iterations", "1000", "--pbkdf", "pbkdf2", "--batch-mode", "--key-file", "-"]
subprocess.run(["/usr/sbin/cryptsetup", "luksFormat", *fast, path], input=b"secret", check=True)
os.chown(path, 65534, 65534)
dropped()
from agent.connectors import local
async def main():
    try:
        await local.attach(path, ident, 32 << 20, encrypted=True, passphrase=b"another")
    except WrongKey as error:
        wrong = error.code
    left = len(await local.current())
    device = await local.attach(path, ident, 32 << 20, encrypted=True, passphrase=b"secret")
    again = await local.attach(path, ident, 32 << 20, encrypted=True, passphrase=b"secret")
    return wrong, left, device.device.removesuffix(ident), device == again, await local.detach(ident)
told(found=asyncio.run(main()))
"""
    with traversable() as base:
        assert run(code, base)["found"] == ["device.wrong-key", 0, "/dev/mapper/brickyard-", True, True]
