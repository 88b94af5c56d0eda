"""Fibre Channel in software: three network cards on one wire, FCoE between them, the kernel's own target on the last.

The target is there before the initiators' ports: one that is first seen without its role never gets a target number.
Ports are made while their card has no link, since libfcoe falls over a frame that comes before the port is whole.
The kernel does not look for LUNs of itself here: on a slow machine it does so long after a port is online, and brings a
disk back that was given up. What a look of its own leaves behind is made by the tests that are about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.host import scsi
from tests.kernel.support.initiator import sh, until

_MODULES = (
    "libfc libfcoe fcoe target_core_mod target_core_iblock tcm_fc sd_mod loop dm_crypt dm_multipath"
    " dm_service_time scsi_dh_alua"
)
_TARGET = Path("/sys/kernel/config/target")
_LOOKS = Path("/sys/module/scsi_mod/parameters/scan")
_CONTROL = Path("/sys/module/libfcoe/parameters")
CARDS = ("eth0", "eth1", "eth2")


def wwn(card: str) -> str:
    """The port name of a card, as the target's configuration writes it."""
    return "20:00:" + Path("/sys/class/net", card, "address").read_text().strip()


def plain(card: str) -> str:
    return wwn(card).replace(":", "")


@contextmanager
def ready() -> Iterator[None]:
    """Two initiator ports see one port of a target that has no LUN yet."""
    sh("modprobe e1000e", check=False)  # of an emulated machine; others have cards without it
    sh(f"modprobe -a {_MODULES}")
    sh("udevadm settle")
    for card in CARDS:
        sh(f"ip link set {card} down mtu 9000")
    group, usual = _group(), _LOOKS.read_text()
    try:
        _LOOKS.write_text("manual")
        _create(CARDS[2])
        group.mkdir(parents=True)
        for card in CARDS[:2]:
            (group / "acls" / wwn(card)).mkdir()
            _create(card)
        until(lambda: seen() == 2, 120, "the initiators do not see the target")
        yield
    finally:
        _LOOKS.write_text(usual)
        for card in CARDS[:2]:
            sh(f"echo {card} > {_CONTROL}/destroy", check=False)
            acl = group / "acls" / wwn(card)
            if acl.is_dir():
                acl.rmdir()
        if group.is_dir():
            group.rmdir()
            group.parent.rmdir()
            group.parent.parent.rmdir()
        sh(f"echo {CARDS[2]} > {_CONTROL}/destroy", check=False)
        for card in CARDS:
            sh(f"ip link set {card} down mtu 1500", check=False)


def on_a_bus() -> bool:
    """Whether udev can tell where the cards are."""
    return all(Path("/sys/class/net", card, "device").exists() for card in CARDS)


def back() -> None:
    """Both ports see the target again. Without a switch, ports find each other by what they say when their links come
    up; where one of them missed it, its link comes up once more."""
    for _ in range(6):
        with suppress(AssertionError):
            until(lambda: seen() == 2, 30)
            return
        for card in CARDS[:2]:
            sh(f"ip link set {card} down && sleep 1 && ip link set {card} up")
    until(lambda: seen() == 2, 60, "the target does not come back")


def seen() -> int:
    """How many ports of this host see the target online as a target."""
    found = 0
    for place in Path("/sys/class/fc_remote_ports").glob("rport-*"):
        told = {name: (place / name).read_text().strip() for name in ("port_name", "port_state", "scsi_target_id")}
        found += (
            told["port_name"] == f"0x{plain(CARDS[2])}"
            and told["port_state"] == "Online"
            and told["scsi_target_id"] != "-1"
        )
    return found


class Disk:
    """A volume of the target: a file through a loop device, with an identity of its own, mapped at LUNs."""

    def __init__(self, folder: Path, name: str, serial: str, size: int) -> None:
        self.file = folder / name
        with self.file.open("wb") as out:
            out.truncate(size)
        self.loop = sh(f"losetup -f --show {self.file}").strip()
        self.name, self.store = name, _TARGET / "core/iblock_0" / name
        self.store.mkdir(parents=True)
        (self.store / "control").write_text(f"udev_path={self.loop}")
        (self.store / "enable").write_text("1")
        (self.store / "wwn/vpd_unit_serial").write_text(serial)
        self.identity = scsi.lio_identity(serial)

    def map(self, lun: int) -> None:
        place = _group() / "lun" / f"lun_{lun}"
        place.mkdir()
        (place / self.name).symlink_to(self.store)
        for card in CARDS[:2]:
            mapped = _group() / "acls" / wwn(card) / f"lun_{lun}"
            mapped.mkdir()
            (mapped / self.name).symlink_to(place)

    def unmap(self, lun: int) -> None:
        place = _group() / "lun" / f"lun_{lun}"
        for card in CARDS[:2]:
            mapped = _group() / "acls" / wwn(card) / f"lun_{lun}"
            (mapped / self.name).unlink()
            mapped.rmdir()
        (place / self.name).unlink()
        place.rmdir()

    def grow(self, size: int) -> None:
        with self.file.open("r+b") as file:
            file.truncate(size)
        sh(f"losetup -c {self.loop}")

    def remove(self) -> None:
        """It is not mapped any more."""
        self.store.rmdir()
        if not list(self.store.parent.glob("*/udev_path")):
            self.store.parent.rmdir()
        sh(f"losetup -d {self.loop}")
        self.file.unlink()


def _create(card: str) -> None:
    sh(f"echo {card} > {_CONTROL}/create_vn2vn")
    sh(f"ip link set {card} up")
    until(lambda: f"0x{plain(card)}" in _online(), 60, f"{card} does not come online")


def _online() -> set[str]:
    ports = Path("/sys/class/fc_host").glob("host*")
    return {
        (one / "port_name").read_text().strip() for one in ports if (one / "port_state").read_text().strip() == "Online"
    }


def _group() -> Path:
    return _TARGET / "fc" / wwn(CARDS[2]) / "tpgt_1"
