"""Images of Ceph clusters that the kernel's own client shows as disks, as sysfs tells them. Pure reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.host import sysfs

BUS = Path("bus/rbd")
_HEAD = "-"
"""What the kernel calls an image as it is now, and no snapshot of it."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapped image: the disk is `name` (`rbd0`); `image_id` is never used twice in a cluster. Bytes."""

    number: int
    pool: str
    image: str
    image_id: str
    size: int
    read_only: bool
    diskseq: int | None

    @property
    def name(self) -> str:
        return f"rbd{self.number}"

    @property
    def identity(self) -> str:
        return f"image.{self.image_id}"


def available(root: Path = Path("/")) -> bool:
    """Whether the kernel's client is loaded."""
    return (root / "sys" / BUS).is_dir()


def mapped(sys: Path = sysfs.SYS) -> tuple[Mapped, ...]:
    """All images that are mapped, without snapshots, by number."""
    numbers = sorted(int(name) for name in sysfs.listed(sys / BUS / "devices") if name.isdigit())
    return tuple(one for number in numbers if (one := _mapped(number, sys)) is not None)


def image(pool: str, name: str, *, read_only: bool, sys: Path = sysfs.SYS) -> Mapped | None:
    """The disk of an image, mapped like that."""
    found = (one for one in mapped(sys) if (one.pool, one.image, one.read_only) == (pool, name, read_only))
    return next(found, None)


def disk(short: str, sys: Path = sysfs.SYS) -> Mapped | None:
    """The image that the kernel shows as this disk (`rbd0`)."""
    return next((one for one in mapped(sys) if one.name == short), None)


def _mapped(number: int, sys: Path) -> Mapped | None:
    folder, name = sys / BUS / "devices" / str(number), f"rbd{number}"
    told = {key: sysfs.text(folder / key) for key in ("pool", "name", "image_id", "size", "current_snap")}
    if told["pool"] is None or told["name"] is None or told["current_snap"] != _HEAD:
        return None
    size = told["size"] or ""
    return Mapped(
        number, told["pool"], told["name"], told["image_id"] or "", int(size) if size.isdigit() else 0,
        sysfs.is_read_only(name, sys), sysfs.diskseq(name, sys),
    )  # fmt: skip
