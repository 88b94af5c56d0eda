"""What kernel tests share. They run in a guest (`make test-kernel`), or here where this kernel is asked to serve."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.support import rules

WHERE = os.environ.get("BRICKYARD_KERNEL", "")  # "guest", "host", or not set
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = ""
    if WHERE not in {"guest", "host"}:
        reason = "needs a kernel of its own: make test-kernel (or BRICKYARD_KERNEL=host)"
    elif os.geteuid() != 0:
        reason = "needs root"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def udev_rules() -> Iterator[None]:
    if WHERE not in {"guest", "host"} or os.geteuid() != 0:
        yield
        return
    with rules.installed():
        yield


@pytest.fixture(scope="session")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ...]]:
    """Empty disks to do anything with, the largest first; a test leaves them without anything on top of them."""
    if WHERE == "guest":
        links = sorted(Path("/dev/disk/by-id").glob("virtio-brickyard-disk?"))
        yield tuple(link.resolve() for link in links)
        return
    folder = tmp_path_factory.mktemp("disks")
    found = []
    for index, size in enumerate((2048, 1024, 512)):
        file = folder / f"disk{index}"
        with file.open("wb") as out:
            out.truncate(size << 20)
        made = subprocess.run(["losetup", "-f", "--show", file], check=True, capture_output=True, text=True)
        found.append(Path(made.stdout.strip()))
    yield tuple(found)
    for device in found:
        subprocess.run(["losetup", "-d", device], check=True)
