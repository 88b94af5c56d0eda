"""The NVMe side of a guest: its modules, addresses for portals, the state of each path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.host import nvme
from tests.kernel.support.initiator import sh

_MODULES = "nvmet nvmet_tcp nvme_tcp loop dm_crypt"
LINK = "brickyard0"


@contextmanager
def ready(*addresses: str) -> Iterator[None]:
    """Initiator and target are loaded, and these addresses (with their prefix) are this host's."""
    sh(f"modprobe -a {_MODULES}")
    sh(f"ip link add {LINK} type dummy && ip link set {LINK} up")
    try:
        for address in addresses:
            add(address)
        yield
    finally:
        sh(f"ip link del {LINK}")


def add(address: str) -> None:
    sh(f"ip addr add {address} dev {LINK}{' nodad' if ':' in address else ''}")


def drop(address: str) -> None:
    sh(f"ip addr del {address} dev {LINK}")


def live(target: str) -> int:
    """How many controllers of the subsystem are live."""
    found = nvme.subsystem(target)
    return sum(one.live for one in found.controllers) if found is not None else 0


def ana(target: str, address: str) -> str:
    """The ANA state of the path by one portal."""
    found = nvme.subsystem(target)
    assert found is not None
    (one,) = [each for each in found.controllers if each.address == address]
    (path,) = Path("/sys/class/nvme", one.name).glob("nvme*c*n*/ana_state")
    return path.read_text().strip()
