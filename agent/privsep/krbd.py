"""Verbs of the kernel's own client of Ceph: images of volumes are mapped and unmapped through its files, by no tool.

Only images whose names are those of volumes can be mapped. The key of the user never stands in a command: the kernel
takes it from its key store. Who maps or unmaps an image holds its lock until the kernel is done with that: what
outlived its agent in there has ended before the next one looks.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.host import rbd, sysfs
from agent.privsep import checks, cutting, devices, kernel_keys
from agent.privsep.contexts import net, privileged
from agent.privsep.errors import DeviceHeld, KernelRefused, MapFailed
from agent.privsep.locking import lock

_IMAGE = re.compile(r"byv-(?P<id>[0-9a-f-]{36})")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MOUNT_S = 30
_END_S = 100.0  # shorter than callers wait for a verb
_REASONS = {
    errno.ETIMEDOUT: "the cluster does not answer",
    errno.ENOENT: "the cluster has no such image, or no such pool",
    errno.EPERM: "the cluster does not let this user in, or not to this image",
    errno.EACCES: "the cluster does not let this user in, or not to this image",
    errno.ENXIO: "it has features that this kernel does not know (rbd feature disable)",
    errno.ENOKEY: "the kernel did not find the key that it was given",
    errno.EROFS: "it can only be read",
}


@privileged(net)
def rbd_map(
    pool: str,
    image: str,
    who: tuple[str, bytes],
    monitors: Sequence[tuple[str, int]],
    *,
    messenger: str,
    read_only: bool,
    fail_io_s: int,
) -> tuple[str, str]:
    """Make a disk of an image, or find the one that there is: its name (`rbd0`), and the id of its cluster.

    `who`: a user and its key in base64, as keyrings have it. `fail_io_s`: how long I/O waits for a cluster that does
    not answer. MapFailed, KernelRefused, VerbRefused.
    """
    _checked(pool, image)
    options = _options(who[0], monitors, messenger, read_only, fail_io_s)
    key = _decoded(checks.secret(who[1]))
    with _alone(pool, image) as fd:
        found = rbd.image(pool, image, read_only=read_only)
        if found is None:
            name = f"brickyard-{image}"
            try:
                with kernel_keys.held("ceph", name, key):
                    os.write(fd, f"{options[0]} {options[1]},key={name} {pool} {image} -".encode())
            except OSError as error:
                reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
                raise MapFailed(image=f"{pool}/{image}", reason=reason) from None
            found = rbd.image(pool, image, read_only=read_only)
    if found is None:
        raise MapFailed(image=f"{pool}/{image}", reason="the kernel shows no disk of it")
    return found.name, sysfs.text(_folder(found.number) / "cluster_fsid") or ""


@privileged(net)
def rbd_unmap(pool: str, image: str, *, read_only: bool, force: bool = False) -> bool:
    """Flush the disk of an image and take it away; False when there is none. DeviceHeld, KernelRefused.

    With `force` although somebody has it open: what is read and written from now on fails.
    """
    _checked(pool, image)
    checks.flag(read_only, "read_only")
    with contextlib.ExitStack() as lock:
        lock.enter_context(_alone(pool, image))
        found = rbd.image(pool, image, read_only=read_only)
        if found is None:
            return False
        if checks.flag(force, "force"):
            cutting.spare_system(found.name)
        else:
            if users := sysfs.users_of(found.name):
                raise DeviceHeld(device=f"/dev/{found.name}", holders=", ".join(users))
            devices.closed(found.name)
        _end(found, force, lock.pop_all())
    return True


@privileged(net)
def rbd_refresh(pool: str, image: str, *, read_only: bool) -> None:
    """Let the kernel ask the cluster for the size of an image; nothing when it is not mapped. KernelRefused."""
    _checked(pool, image)
    found = rbd.image(pool, image, read_only=checks.flag(read_only, "read_only"))
    if found is not None:
        try:
            _write(_folder(found.number) / "refresh", "1")
        except OSError as error:
            reason = error.strerror or str(error)
            raise KernelRefused(action="refresh", device=f"/dev/{found.name}", reason=reason) from error


def _end(found: rbd.Mapped, force: bool, lock: contextlib.ExitStack) -> None:
    """The kernel waits for a cluster that is silent, and is left to that, with the lock. DeviceHeld, KernelRefused."""
    failed: list[OSError] = []

    def end() -> None:
        with lock:
            if not force:
                with contextlib.suppress(KernelRefused):  # what the kernel has given up on can not be written any more
                    devices.flush(found.name)
            try:
                _write(_command("remove"), f"{found.number} force" if force else f"{found.number}")
            except OSError as error:
                failed.append(error)

    working = threading.Thread(target=end, daemon=True)
    working.start()
    working.join(_END_S)
    device = f"/dev/{found.name}"
    if working.is_alive():
        reason = "the cluster does not answer, and the kernel has not given up on it yet"
        raise KernelRefused(action="unmap", device=device, reason=reason)
    if failed and failed[0].errno == errno.EBUSY:
        raise DeviceHeld(device=device, holders="a process that has it open")
    if failed and failed[0].errno != errno.ENOENT:
        raise KernelRefused(action="unmap", device=device, reason=failed[0].strerror or str(failed[0]))


@contextlib.contextmanager
def _alone(pool: str, image: str) -> Iterator[int]:
    """The kernel's file for new mappings, with the image's lock of it."""
    place = _command("add")
    try:
        fd = os.open(place, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        reason = "the kernel's client of Ceph is not loaded (modprobe rbd)"
        raise KernelRefused(action="open", device=str(place), reason=reason) from error
    try:
        lock(fd, f"{pool}/{image}", fcntl.F_WRLCK)
        yield fd
    finally:
        os.close(fd)


def _options(
    user: object, monitors: Sequence[tuple[str, int]], messenger: object, read_only: object, fail_io_s: object
) -> tuple[str, str]:
    """(monitors, options) as the kernel wants them written."""
    places = []
    for host, port in monitors:
        address, number = checks.address(host), checks.number(port, "port", 1 << 16)
        places.append(f"[{address}]:{number}" if ":" in address else f"{address}:{number}")
    if not places:
        raise checks.refused("no monitor is named")
    if messenger not in {"v1", "v2"}:
        raise checks.refused(f"messenger {checks.shown(messenger)} is not known")
    wait = checks.number(fail_io_s, "time-out", 1 << 16)
    told = [f"name={_word(user, 'user')}", f"osd_request_timeout={wait}", f"mount_timeout={_MOUNT_S}"]
    told += ["ms_mode=prefer-crc"] if messenger == "v2" else []
    told += ["ro"] if checks.flag(read_only, "read_only") else []
    return ",".join(places), ",".join(told)


def _checked(pool: object, image: object) -> None:
    _word(pool, "pool")
    match = _IMAGE.fullmatch(image) if isinstance(image, str) else None
    if match is None:
        raise checks.refused(f"image {checks.shown(image)} is not that of a volume")
    checks.uuid(match["id"], "volume")


def _word(value: object, noun: str) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise checks.refused(f"{noun} {checks.shown(value)} is not a plain name")
    return value


def _decoded(key: bytes) -> bytes:
    """The key as the kernel takes it; it is never part of the error."""
    try:
        return base64.b64decode(key, validate=True)
    except ValueError:
        raise checks.refused("the key is not one of a keyring") from None


def _command(name: str) -> Path:
    """The file of a command: where all images share a major number, which is usual, it has a name of its own."""
    shared = sysfs.SYS / rbd.BUS / f"{name}_single_major"
    return shared if shared.exists() else sysfs.SYS / rbd.BUS / name


def _folder(number: int) -> Path:
    return sysfs.SYS / rbd.BUS / "devices" / str(number)


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
