"""Argument checks of the privileged side: type first, then form. The other side may be anyone."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import PurePosixPath

from agent.base.ids import is_id
from agent.host import ccw, fcp, nvme, sysfs
from agent.host.lvm import PARTS, is_plain_name, parsed_name, volume_name
from agent.privsep import limits
from agent.privsep.beneath import open_beneath, open_folder
from agent.privsep.errors import VerbRefused

LOOP_NAME_PREFIX = "brickyard-"
EXPORT_NAME_PREFIX = "byexport-"
_MAX_LOOP = 1 << 20
_MAX_SECRET = 1 << 16


def refused(reason: str) -> VerbRefused:
    return VerbRefused(reason=reason)


def loop_name(purpose: object, ident: object) -> str:
    """What a loop device is bound for: `attachment` or `export` of that id."""
    if purpose == "attachment":
        return LOOP_NAME_PREFIX + uuid(ident, "attachment")
    if purpose == "export":
        return EXPORT_NAME_PREFIX + uuid(ident, "volume")
    raise VerbRefused(reason=f"purpose {shown(purpose)} is neither attachment nor export")


def cut_name(ident: object) -> str:
    """What a device is called that an attachment had, and that its holders were cut off from."""
    return sysfs.CUT_PREFIX + uuid(ident, "attachment")


def uuid(value: object, noun: str) -> str:
    if not isinstance(value, str) or not is_id(value):
        raise VerbRefused(reason=f"{noun} {shown(value)} is not a UUID")
    return value


def number(value: object, noun: str, below: int = _MAX_LOOP) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
        raise VerbRefused(reason=f"{noun} {shown(value)} is not a number below {below}")
    return value


def sequence(value: object) -> int | None:
    return None if value is None else number(value, "disk sequence", 1 << 63)


def flag(value: object, noun: str) -> bool:
    if not isinstance(value, bool):
        raise VerbRefused(reason=f"{noun} {shown(value)} is not a truth value")
    return value


def secret(value: object) -> bytes:
    """The value is never part of the error."""
    if not isinstance(value, bytes) or not 0 < len(value) <= _MAX_SECRET:
        raise VerbRefused(reason=f"the secret is not 1 to {_MAX_SECRET} bytes")
    return value


def group(value: object) -> str:
    """A volume group that the limits allow."""
    if not isinstance(value, str) or value not in limits.current().groups:
        raise VerbRefused(reason=f"volume group {shown(value)} is not among those allowed")
    return value


def logical(part: object, ident: object) -> str:
    """The name of a logical volume of ours."""
    if not isinstance(part, str) or part not in PARTS:
        raise VerbRefused(reason=f"part {shown(part)} is not known")
    return volume_name(part, uuid(ident, part))


def foreign(value: object, noun: str) -> str:
    """The name of a thin pool, or of a volume that is not ours."""
    if not isinstance(value, str) or not is_plain_name(value) or parsed_name(value) is not None:
        raise VerbRefused(reason=f"{noun} {shown(value)} is not a plain name that is not one of ours")
    return value


def size(value: object) -> int:
    """Bytes of a volume: whole sectors, at least one."""
    checked = number(value, "size", 1 << 62)
    if not checked or checked % 512:
        raise VerbRefused(reason=f"size {checked} is not a positive multiple of 512 bytes")
    return checked


def channel_device(value: object) -> str:
    """The bus id of a channel-attached device that the limits allow."""
    if not isinstance(value, str) or not ccw.BUS_ID.fullmatch(value):
        raise VerbRefused(reason=f"device {shown(value)} is not a bus id like 0.0.1a2b")
    if not channel_allowed(value):
        raise VerbRefused(reason=f"device {value} is not among those that limits.toml allows ([ccw] bus_ids)")
    return value


def channel_allowed(bus_id: str) -> bool:
    """Whether it is a bus id at all, and root's limits name it."""
    allowed = limits.current().bus_ids
    return ccw.BUS_ID.fullmatch(bus_id) is not None and any(ccw.covers(span, bus_id) for span in allowed)


def array_port(value: object) -> str:
    """The name (`0x…`) of a port of an array that the limits allow."""
    checked = hex64(value, "port name")
    if not array_port_allowed(checked):
        reason = f"port {checked[2:]} is not among those that limits.toml allows ([fc] array_ports)"
        raise VerbRefused(reason=reason)
    return checked


def array_port_allowed(wwpn: str) -> bool:
    """Whether root's limits name this port (`0x…`)."""
    return wwpn.removeprefix("0x") in limits.current().array_ports


def address(value: object) -> str:
    """An IP address in its plainest form."""
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise VerbRefused(reason=f"address {shown(value)} is not an IP address") from None


def fabric(value: object) -> str:
    """How NVMe goes to another host, in the kernel's word."""
    if not isinstance(value, str) or value not in nvme.FABRICS:
        raise refused(f"transport {shown(value)} is neither of {', '.join(sorted(nvme.FABRICS))}")
    return value


def hex64(value: object, noun: str) -> str:
    """`0x` and sixteen lower-case hexadecimal digits: a port name or a LUN of FCP."""
    if not isinstance(value, str) or not fcp.WWPN.fullmatch(value):
        raise VerbRefused(reason=f"{noun} {shown(value)} is not 0x and sixteen hexadecimal digits")
    return value


def volume_path(value: object) -> tuple[str, str]:
    """Split an absolute path into (allowed root, path beneath it); its last part must be a UUID. VerbRefused."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value or len(value) > 4096:
        raise VerbRefused(reason=f"path {shown(value)} is not an absolute path")
    parts = value[1:].split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise VerbRefused(reason=f"path {shown(value)} is not in its plainest form")
    uuid(parts[-1], "file name")
    for root in limits.current().roots:
        if PurePosixPath(value).is_relative_to(root) and value != root:
            return root, value[len(root) + 1 :]
    raise VerbRefused(reason=f"path {shown(value)} is beneath none of the allowed roots")


def open_volume(value: object, read_only: bool) -> int:
    """Open a volume's file: regular, one name only, of the same owner as its root. VerbRefused."""
    root, relative = volume_path(value)
    folder = -1
    try:
        folder = open_folder(root)
        fd = open_beneath(folder, relative, os.O_RDONLY if read_only else os.O_RDWR)
    except (OSError, ValueError) as error:
        raise VerbRefused(reason=f"{shown(value)} can not be opened ({error})") from error
    else:
        problem = _unfit(os.fstat(fd), os.fstat(folder))
        if problem:
            os.close(fd)
            raise VerbRefused(reason=f"{shown(value)} {problem}")
        return fd
    finally:
        if folder >= 0:
            os.close(folder)


def _unfit(file: os.stat_result, root: os.stat_result) -> str:
    if not stat.S_ISREG(file.st_mode):
        return "is not a regular file"
    # A hard link could lend a root-owned file a harmless name.
    if file.st_nlink != 1:
        return "has more than one name"
    if file.st_uid != root.st_uid:
        return "belongs to another user than its root folder"
    if file.st_size <= 0 or file.st_size % 512:
        return "is not a positive multiple of 512 bytes long"
    return ""


def shown(value: object) -> str:
    return repr(value)[:200] if isinstance(value, (str, int, type(None))) else type(value).__name__
