"""Verbs on the kernel's SCSI target (LIO): one target per volume and fabric, by the volume's id, over the device that
was made for it.

`lio_apply` makes the whole of one target so; done again, or after a kill at any line, it ends the same. Nothing but
targets of our prefix and devices that are bound for the volume can be reached.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.host import lio, rdma, sysfs
from agent.privsep import checks, configfs, devices, loopctl
from agent.privsep.contexts import net, privileged
from agent.privsep.errors import DeviceForeign, NoRdma, NoVhost, TargetRefused, VhostHeld

_NAME = re.compile(r"(iqn\.\d{4}-\d{2}\.[a-z0-9.:-]{1,205}|eui\.[0-9a-f]{16}|naa\.[0-9a-f]{16,32})")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SECRET = re.compile(rb"[A-Za-z0-9]{12,64}")
_MOST = 256
_stores = threading.Lock()


@privileged(net)
def lio_apply(
    volume_id: str,
    device: str,
    diskseq: int | None,
    portals: Sequence[tuple[str, int]],
    consumers: Sequence[tuple[str, bool, str, bytes | None]],
    *,
    fabric: lio.Fabric = "iscsi",
) -> dict[str, Any]:
    """Offer the device to exactly these consumers (initiator, read_only, CHAP user, CHAP secret or None).

    By vhost it is offered to guests of this host, which have no names: there are neither portals nor consumers.
    {target, lun, serial, size (bytes)}. VerbRefused, DeviceForeign, TargetRefused; NoRdma, where a portal is to be
    reached by iSER and no RDMA device has its address; NoVhost.
    """
    volume, kind = checks.uuid(volume_id, "volume"), _fabric(fabric)
    wanted = {_initiator(name): _consumer(*rest) for name, *rest in _rows(consumers, 4)}
    names = {lio.portal_name(*_portal(*row)) for row in _rows(portals, 2)}
    if kind == "vhost" and (wanted or names):
        raise checks.refused("by vhost there are neither portals nor consumers")
    _, held = devices.hold(device, diskseq, checks.loop_name("export", volume))
    try:
        with configfs.told(f"export volume {volume}"):
            _need_target(kind)
            group = _group(volume, _store(volume, device), kind)
            if kind != "vhost":
                _let_in_only(group, wanted)
                _answer_only(group, names, kind)
                configfs.want(group / "enable", "1")
        size = loopctl.size(held)
    finally:
        os.close(held)
    return {"target": lio.name_of(volume, kind), "lun": lio.LUN, "serial": volume, "size": size}


@privileged(net)
def lio_remove(volume_id: str, *, fabric: lio.Fabric = "iscsi") -> bool:
    """Take one of the volume's targets away with everything in it, sessions too; False when there was none.

    TargetRefused; VhostHeld, where a guest has it open: then nothing was changed.
    """
    volume, kind = checks.uuid(volume_id, "volume"), _fabric(fabric)
    target = lio.folder(volume, kind)
    with configfs.told(f"take back volume {volume}"):
        there = lio.stands(volume, kind)
        if there:
            _end(target / "tpgt_1", volume, kind)
            configfs.remove(target)
        if not any(lio.stands(volume, one) for one in lio.FABRICS):
            with _stores:
                there = configfs.remove(lio.CONFIGFS / "core" / lio.HBA / volume) or there
                with contextlib.suppress(OSError):
                    configfs.remove(lio.CONFIGFS / "core" / lio.HBA)
    return there


def _end(group: Path, volume: str, fabric: lio.Fabric) -> None:
    """Take the portal group away."""
    if fabric == "vhost":
        # The kernel refuses first where a guest has it open, and only then for what is in it: so both can be told
        # apart before anything is changed. The nexus goes with the group.
        try:
            configfs.remove(group)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise VhostHeld(target=group.parent.name, volume=volume) from error
            if error.errno != errno.ENOTEMPTY:
                raise
    elif group.is_dir():
        with contextlib.suppress(OSError):  # it says so when it is not enabled
            configfs.write(group / "enable", "0")
        for folder in configfs.folders(group / "acls"):
            _shut_out(folder)
    for folder in configfs.folders(group / "lun"):
        configfs.unlink_all(folder)
        configfs.remove(folder)
    for folder in configfs.folders(group / "np"):
        configfs.remove(folder)
    configfs.remove(group)


def _store(volume: str, device: str) -> Path:
    """The storage object over the device, with the volume's id as its unit serial number."""
    store = lio.CONFIGFS / "core" / lio.HBA / volume
    with _stores:
        configfs.make(store.parent)
        made = configfs.make(store)
    if sysfs.text(store / "enable") == "1":
        if lio.device_of(store) != device:
            raise DeviceForeign(device=device, reason=f"volume {volume} is exported from {lio.device_of(store)}")
        return store
    try:
        configfs.write(store / "udev_path", device)
        configfs.write(store / "control", f"udev_path={device}")
        configfs.write(store / "enable", "1")
    except OSError:
        if made:
            configfs.remove(store)
        raise
    configfs.write(store / "wwn/vpd_unit_serial", volume)
    for attribute in ("emulate_tpu", "emulate_tpws"):  # refused where the device can not discard
        with contextlib.suppress(OSError):
            configfs.write(store / "attrib" / attribute, "1")
    return store


def _group(volume: str, store: Path, fabric: lio.Fabric) -> Path:
    """The portal group: nobody without a row of its own gets in, and nobody without CHAP where a row has it."""
    told = sysfs.text(store / "wwn/vpd_unit_serial") or ""
    if not told.endswith(volume):
        configfs.write(store / "wwn/vpd_unit_serial", volume)
    group = lio.folder(volume, fabric) / "tpgt_1"
    lun = group / "lun" / f"lun_{lio.LUN}"
    for folder in (group.parent.parent, group.parent, group, lun):
        configfs.make(folder)
    if fabric != "vhost":
        for attribute, value in (("generate_node_acls", "0"), ("authentication", "1"), ("cache_dynamic_acls", "0")):
            configfs.want(group / "attrib" / attribute, value)
    elif not lio.stands(volume, fabric):
        raise DeviceForeign(device=group.parent.name, reason="another volume has a vhost endpoint of that name")
    elif not sysfs.text(group / "nexus"):
        configfs.write(group / "nexus", lio.nexus_of(volume))
    if not configfs.links(lun):
        configfs.link(lun, store)
    return group


def _let_in_only(group: Path, wanted: Mapping[str, tuple[bool, str, bytes | None]]) -> None:
    for name, (read_only, user, secret) in wanted.items():
        _let_in(group, name, read_only, user, secret)
    for folder in configfs.folders(group / "acls"):
        if folder.name not in wanted:
            _shut_out(folder)


def _answer_only(group: Path, names: Collection[str], fabric: lio.Fabric) -> None:
    for name in names:
        _answer(group / "np" / name, fabric == "iser")
    for folder in configfs.folders(group / "np"):
        if folder.name not in names:
            configfs.remove(folder)


def _answer(portal: Path, iser: bool) -> None:
    """Answer there, by iSER too where that is wanted: else a consumer would be taken by TCP without noticing."""
    made = configfs.make(portal)
    if not iser:
        return
    try:
        configfs.want(portal / "iser", "1")
    except OSError as error:
        if made:
            configfs.remove(portal)
        if error.errno in rdma.NO_DEVICE:
            raise NoRdma(what=f"portal {portal.name}", reason=error.strerror or "none") from error
        raise


def _let_in(group: Path, initiator: str, read_only: bool, user: str, secret: bytes | None) -> None:
    folder = group / "acls" / initiator
    configfs.make(folder)
    if secret is not None:
        configfs.write(folder / "auth/userid", user)
        configfs.write(folder / "auth/password", secret)
    configfs.want(folder / "attrib/authentication", "1" if secret is not None else "0")
    lun = folder / f"lun_{lio.LUN}"
    configfs.make(lun)
    if not configfs.links(lun):
        configfs.link(lun, group / "lun" / f"lun_{lio.LUN}")
    configfs.want(lun / "write_protect", str(int(read_only)))


def _shut_out(folder: Path) -> None:
    """Remove a consumer; the kernel ends its session."""
    for lun in configfs.folders(folder):
        if lun.name.startswith("lun_"):
            configfs.unlink_all(lun)
            configfs.remove(lun)
    configfs.remove(folder)


def _need_target(fabric: lio.Fabric) -> None:
    if not lio.available():
        raise TargetRefused(action="export", reason="the kernel's target is not loaded")
    if fabric == "vhost" and not lio.has_vhost():
        raise NoVhost()


def _fabric(value: object) -> lio.Fabric:
    for one in lio.FABRICS:
        if value == one:
            return one
    raise checks.refused(f"fabric {checks.shown(value)} is neither of {', '.join(lio.FABRICS)}")


def _rows(value: object, width: int) -> list[Any]:
    if not isinstance(value, (list, tuple)) or len(value) > _MOST:
        raise checks.refused("a list of portals or consumers has another form, or is too long")
    if not all(isinstance(row, (list, tuple)) and len(row) == width for row in value):
        raise checks.refused("a portal or a consumer has another form")
    return list(value)


def _portal(address: object, port: object) -> tuple[str, int]:
    return checks.address(address), checks.number(port, "port", 1 << 16)


def _initiator(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise checks.refused(f"initiator {checks.shown(name)} is not an iSCSI name")
    return name


def _consumer(read_only: object, user: object, secret: object) -> tuple[bool, str, bytes | None]:
    checked = checks.flag(read_only, "read_only")
    if secret is None:
        return checked, "", None
    if not isinstance(user, str) or not _USER.fullmatch(user):
        raise checks.refused(f"CHAP user {checks.shown(user)} is not a plain name")
    if not isinstance(secret, bytes) or not _SECRET.fullmatch(secret):
        raise checks.refused("a CHAP secret is not 12 to 64 letters and digits")
    return checked, user, secret
