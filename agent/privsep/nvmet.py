"""Verbs on the kernel's NVMe target: one subsystem per volume and consumer, over the device made for the volume.

`nvmet_apply` makes all subsystems of one volume so; done again, or after a kill at any line, it ends the same. Nothing
but subsystems of our prefix, ports of our numbers and devices that are bound for the volume can be changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.host import lio, nvmet, rdma, sysfs
from agent.privsep import checks, configfs, devices, loopctl
from agent.privsep.contexts import net, privileged
from agent.privsep.errors import DeviceForeign, NoRdma, TargetRefused

_NQN = re.compile(r"nqn\.\d{4}-\d{2}\.[A-Za-z0-9][A-Za-z0-9.:_-]{1,205}")
_MOST = 256
_shared = threading.Lock()  # ports and hosts are used by the subsystems of many volumes


@privileged(net)
def nvmet_apply(
    volume_id: str,
    device: str,
    diskseq: int | None,
    portals: Sequence[tuple[str, int, bool]],
    initiators: Sequence[str],
    *,
    transport: str = "tcp",
) -> dict[str, Any]:
    """Offer the device to exactly these hosts by that transport, at these portals (address, port, preferred).

    {nsid, uuid, size (bytes), targets: {initiator: NQN}}. VerbRefused, DeviceForeign, TargetRefused; NoRdma, where a
    portal is to be reached by RDMA and no device has its address.
    """
    volume, by = checks.uuid(volume_id, "volume"), checks.fabric(transport)
    wanted = {nvmet.nqn(volume, _initiator(name), by): str(name) for name in _rows(initiators)}
    places = [_portal(row) for row in _rows(portals)]
    _, held = devices.hold(device, diskseq, checks.loop_name("export", volume))
    try:
        with configfs.told(f"export volume {volume}"):
            _need_target()
            for found in nvmet.subsystems(volume, transport=by):
                if found.target not in wanted:
                    _end(found.target)
            for target, initiator in wanted.items():
                folder = _subsystem(volume, target, device)
                _let_in(folder, initiator)
                _show(target, places, by)
        size = loopctl.size(held)
    finally:
        os.close(held)
    targets = {initiator: target for target, initiator in wanted.items()}
    return {"nsid": nvmet.NSID, "uuid": volume, "size": size, "targets": targets}


@privileged(net)
def nvmet_remove(volume_id: str, *, transport: str = "tcp") -> bool:
    """Take all subsystems away by which the volume is reached by that transport, connected or not. TargetRefused.

    False when there was none.
    """
    volume, by = checks.uuid(volume_id, "volume"), checks.fabric(transport)
    with configfs.told(f"take back volume {volume}"):
        found = nvmet.subsystems(volume, transport=by)
        for one in found:
            _end(one.target)
    return bool(found)


@privileged(net)
def nvmet_grow(volume_id: str) -> bool:
    """Tell the hosts that use the volume that its device has grown; False when nobody may. TargetRefused."""
    volume = checks.uuid(volume_id, "volume")
    with configfs.told(f"grow volume {volume}"):
        found = [one for one in nvmet.subsystems(volume) if one.ready]
        for one in found:
            configfs.write(_space(one.target) / "revalidate_size", "1")
    return bool(found)


def _space(target: str) -> Path:
    return nvmet.CONFIGFS / "subsystems" / target / "namespaces" / str(nvmet.NSID)


def _subsystem(volume: str, target: str, device: str) -> Path:
    """The subsystem with its one namespace over the device, whose identity is the volume's id."""
    folder = nvmet.CONFIGFS / "subsystems" / target
    configfs.make(folder)
    configfs.want(folder / "attr_allow_any_host", "0")
    serial = hashlib.sha256(volume.encode()).hexdigest()[:20]
    if sysfs.text(folder / "attr_serial") != serial:
        configfs.write(folder / "attr_serial", serial)
    with contextlib.suppress(OSError):  # a host that has looked at it keeps what it saw
        configfs.want(folder / "attr_model", "Brickyard volume")
    space = _space(target)
    configfs.make(space)
    if sysfs.text(space / "enable") == "1":
        if nvmet.device_of(space) != device:
            raise DeviceForeign(device=device, reason=f"volume {volume} is exported from {nvmet.device_of(space)}")
        return folder
    configfs.write(space / "device_path", device)
    configfs.write(space / "device_uuid", volume)
    configfs.write(space / "device_nguid", volume)
    configfs.write(space / "enable", "1")
    return folder


def _let_in(folder: Path, initiator: str) -> None:
    with _shared:
        host = nvmet.CONFIGFS / "hosts" / initiator
        configfs.make(host)
        configfs.link(folder / "allowed_hosts", host, initiator)


def _show(target: str, places: Sequence[tuple[str, int, bool]], by: str) -> None:
    """Let the subsystem be reached at exactly these portals."""
    with _shared:
        wanted = {_port(*place, by): place for place in places}
        for port, (address, number, _) in wanted.items():
            try:
                configfs.link(port / "subsystems", nvmet.CONFIGFS / "subsystems" / target, target)
            except OSError as error:
                for made in wanted:
                    _drop_unused(made)
                if by == "rdma" and error.errno in rdma.NO_DEVICE:
                    at = f"portal {lio.portal_name(address, number)}"
                    raise NoRdma(what=at, reason=error.strerror or "none") from error
                raise
        _hide(target, but=set(wanted))


def _hide(target: str, but: set[Path]) -> None:
    """Let it be reached nowhere else; a port of ours that shows nothing goes. `_shared` is held."""
    for port in configfs.folders(nvmet.CONFIGFS / "ports"):
        if port not in but:
            with contextlib.suppress(FileNotFoundError):
                (port / "subsystems" / target).unlink()
            _drop_unused(port)


def _drop_unused(port: Path) -> None:
    if _is_ours(port) and not configfs.links(port / "subsystems"):
        configfs.remove(port)


def _port(address: str, service: int, preferred: bool, by: str) -> Path:
    """The port at that address: ours, made where there is none yet, or the administrator's. `_shared` is held."""
    named = {
        "addr_trtype": by,
        "addr_adrfam": "ipv6" if ":" in address else "ipv4",
        "addr_traddr": address,
        "addr_trsvcid": str(service),
    }
    known = configfs.folders(nvmet.CONFIGFS / "ports")
    found = next((one for one in known if all(sysfs.text(one / key) == value for key, value in named.items())), None)
    if found is None:
        taken = {one.name for one in known}
        free = (str(number) for number in range(nvmet.FIRST_PORT, nvmet.FIRST_PORT + nvmet.PORTS))
        number = next((number for number in free if number not in taken), None)
        if number is None:
            raise TargetRefused(action="make a port", reason=f"all of its {nvmet.PORTS} ports are in use")
        found = nvmet.CONFIGFS / "ports" / number
        configfs.make(found)
        for key, value in named.items():
            configfs.write(found / key, value)
    if _is_ours(found):
        configfs.want(found / "ana_groups/1/ana_state", "optimized" if preferred else "non-optimized")
    return found


def _is_ours(port: Path) -> bool:
    return port.name.isdigit() and nvmet.FIRST_PORT <= int(port.name) < nvmet.FIRST_PORT + nvmet.PORTS


def _end(target: str) -> None:
    """Remove a subsystem of ours; the kernel ends the controllers that lead to it."""
    folder = nvmet.CONFIGFS / "subsystems" / target
    with _shared:
        _hide(target, but=set())
    for space in configfs.folders(folder / "namespaces"):
        with contextlib.suppress(FileNotFoundError):
            configfs.write(space / "enable", "0")
        configfs.remove(space)
    with _shared:
        for link in configfs.links(folder / "allowed_hosts"):
            link.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it may use other volumes
                configfs.remove(nvmet.CONFIGFS / "hosts" / link.name)
        configfs.remove(folder)


def _need_target() -> None:
    if not nvmet.available():
        raise TargetRefused(action="export", reason="the kernel's NVMe target is not loaded")


def _rows(value: object) -> list[Any]:
    if not isinstance(value, (list, tuple)) or len(value) > _MOST:
        raise checks.refused("a list of portals or consumers has another form, or is too long")
    return list(value)


def _portal(row: object) -> tuple[str, int, bool]:
    if not isinstance(row, (list, tuple)) or len(row) != 3:
        raise checks.refused("a portal has another form")
    address, port, preferred = row
    return checks.address(address), checks.number(port, "port", 1 << 16), checks.flag(preferred, "preferred")


def _initiator(name: object) -> str:
    if not isinstance(name, str) or not _NQN.fullmatch(name):
        raise checks.refused(f"host {checks.shown(name)} is not an NVMe qualified name")
    return name
