"""Images that the kernel's client of Ceph shows as disks, out of a made-up sysfs."""

from __future__ import annotations

from pathlib import Path

from agent.host import rbd
from tests.unit.agent.host.test_scsi import put

VOLUME = "byv-11111111-2222-4333-8444-555555555555"
MIB = 1 << 20


def mapped(sys: Path, number: int, image: str = VOLUME, *, snap: str = "-", ro: bool = False) -> None:
    device, disk = f"bus/rbd/devices/{number}", f"block/rbd{number}"
    told = {"pool": "volumes", "name": image, "image_id": f"10aa{number}", "current_snap": snap, "size": str(MIB)}
    for name, text in told.items():
        put(sys / device / name, text)
    put(sys / disk / "ro", "1" if ro else "0")
    put(sys / disk / "diskseq", str(number + 7))


def test_images_by_name_and_by_disk(tmp_path: Path) -> None:
    mapped(tmp_path, 0, "somebody-elses")
    mapped(tmp_path, 1)
    mapped(tmp_path, 10, ro=True)
    mapped(tmp_path, 2, snap="before")
    put(tmp_path / "bus/rbd/devices/3/pool", "volumes")
    assert [one.name for one in rbd.mapped(tmp_path)] == ["rbd0", "rbd1", "rbd10"]
    for read_only, name in ((False, "rbd1"), (True, "rbd10")):
        found = rbd.image("volumes", VOLUME, read_only=read_only, sys=tmp_path)
        assert found is not None
        assert (found.name, found.size, found.read_only) == (name, MIB, read_only)
    assert rbd.image("others", VOLUME, read_only=False, sys=tmp_path) is None
    one = rbd.disk("rbd1", tmp_path)
    assert one is not None
    assert (one.identity, one.diskseq) == ("image.10aa1", 8)
    assert rbd.disk("rbd2", tmp_path) is None


def test_a_kernel_without_the_client(tmp_path: Path) -> None:
    assert not rbd.available(tmp_path)
    assert rbd.mapped(tmp_path / "sys") == ()
