"""Verbs of the initiator of NVMe by TCP and RDMA: controllers are made and ended through the kernel's own files, no
tool is needed.

Nothing but controllers over a fabric can be reached. Who connects holds a shared lock of the target, and who ends its
controllers an exclusive one: a connect that outlived its agent inside the kernel has ended before the disconnect looks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from agent.host import nvme, rdma, sysfs
from agent.privsep import checks, cutting, devices
from agent.privsep.contexts import net, privileged
from agent.privsep.errors import ConnectFailed, DeviceHeld, KernelRefused, NoRdma
from agent.privsep.locking import lock

FABRICS = Path("/dev/nvme-fabrics")
_NQN = re.compile(r"nqn\.\d{4}-\d{2}\.[A-Za-z0-9][A-Za-z0-9.:_-]{1,210}")
_DISK = re.compile(r"nvme\d{1,5}n\d{1,5}")
_RETRY_S, _ALIVE_S = 5, 5
_QUEUES = 8
# A path is tried again for ever (a detach ends that); what waits for the last one fails after `fail_io_s`.
_TIMERS = f"ctrl_loss_tmo=-1,reconnect_delay={_RETRY_S},keep_alive_tmo={_ALIVE_S}"
_REASONS = {
    errno.EIO: "the target does not let this host in, or has no such subsystem",
    errno.ECONNREFUSED: "nothing listens there",
}
_NO_WAY = {errno.ECONNRESET: "nothing leads there by RDMA"}


@privileged(net)
def nvme_connect(target: str, address: str, port: int, fail_io_s: int, *, transport: str = "tcp") -> bool:
    """Make a controller at one portal; False when there is one already. ConnectFailed, KernelRefused, VerbRefused;
    NoRdma, where it is to go by RDMA and no device of this host leads there.

    `fail_io_s`: how long I/O waits for the last path of a namespace to come back.
    """
    by = checks.fabric(transport)
    wait = checks.number(fail_io_s, "time-out", 1 << 16)
    name, place, number = _target(target), checks.address(address), checks.number(port, "port", 1 << 16)
    host = nvme.host_nqn()
    if host is None or not _NQN.fullmatch(host):
        raise KernelRefused(action="name", device="this host", reason="/etc/nvme/hostnqn holds no host NQN")
    queues = min(_QUEUES, os.cpu_count() or 1)
    options = (
        f"transport={by},nqn={name},traddr={place},trsvcid={number},hostnqn={host},hostid={nvme.host_id(host)},"
        f"nr_io_queues={queues},fast_io_fail_tmo={wait},{_TIMERS}"
    )
    with _alone(name, exclusive=False) as fd:
        try:
            os.write(fd, options.encode())
        except OSError as error:
            if error.errno in {errno.EALREADY, errno.EEXIST}:
                return False
            known = _REASONS if by == "tcp" else _REASONS | _NO_WAY
            reason = known.get(error.errno or 0, error.strerror or str(error))
            portal = f"[{place}]:{number}" if ":" in place else f"{place}:{number}"
            if by == "rdma" and error.errno in rdma.NO_DEVICE:
                raise NoRdma(what=f"the way to {portal}", reason=error.strerror or "none") from None
            raise ConnectFailed(target=name, portal=portal, reason=reason) from None
    return True


@privileged(net)
def nvme_rescan(target: str) -> None:
    """Let the kernel look at the namespaces of a subsystem again, by every path that is live."""
    found = nvme.subsystem(_target(target))
    for one in found.controllers if found is not None else ():
        if one.live:
            _tell(one.name, "rescan_controller")


@privileged(net)
def nvme_release(target: str, disk: str) -> bool:
    """Flush one namespace that nobody uses; False when it is gone. DeviceHeld, KernelRefused (nothing was changed)."""
    return _released(nvme.subsystem(_target(target)), _disk(disk))


def _released(found: nvme.Subsystem | None, disk: str) -> bool:
    if found is None or disk not in {one.name for one in found.namespaces}:
        return False
    _unused(disk)
    if not found.live:
        return True  # what was not written yet waits for a path that is not there
    devices.closed(disk)
    try:
        fd = os.open(f"/dev/{disk}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceHeld(device=f"/dev/{disk}", holders="a process that has it for itself") from error
        raise KernelRefused(action="flush", device=f"/dev/{disk}", reason=error.strerror or str(error)) from error
    return True


@privileged(net)
def nvme_disconnect(target: str, disk: str = "") -> bool:
    """Flush the last namespace, where told, and end all controllers of a subsystem, whatever their state.

    False: there was none. DeviceHeld, KernelRefused (nothing was changed).
    """
    name, last = _target(target), _disk(disk) if disk else ""
    if last:
        # Not under the lock: this may wait minutes for a path that was just lost, and a connect may bring one.
        _released(nvme.subsystem(name), last)
    with _alone(name, exclusive=True):
        found = nvme.subsystem(name)
        if found is None:
            return False
        for space in found.namespaces:
            _unused(space.name)
        for one in found.controllers:
            _tell(one.name, "delete_controller")
    return True


@privileged(net)
def nvme_cut(target: str, disk: str) -> bool:
    """End all controllers of a subsystem although somebody uses this, its only, namespace; False: there was none.

    What is read and written from now on fails. DeviceHeld (nothing was changed): it has others, which are not meant.
    """
    name, only = _target(target), _disk(disk)
    cutting.spare_system(only)
    if devices.answers(only):
        with contextlib.suppress(KernelRefused):  # what can not be written now never will be
            devices.flush(only)
    with _alone(name, exclusive=True):
        found = nvme.subsystem(name)
        if found is None:
            return False
        if others := [f"/dev/{one.name}" for one in found.namespaces if one.name != only]:
            raise DeviceHeld(device=f"/dev/{only}", holders=f"the paths that serve {', '.join(others)}, too")
        for one in found.controllers:
            _tell(one.name, "delete_controller")
    return True


def _unused(disk: str) -> None:
    if users := sysfs.users_of(disk):
        raise DeviceHeld(device=f"/dev/{disk}", holders=", ".join(users))


def _tell(controller: str, attribute: str) -> None:
    """Write 1 to an attribute of a controller; one that is gone needs no telling."""
    try:
        fd = os.open(sysfs.SYS / "class/nvme" / controller / attribute, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(fd, b"1")
    except OSError as error:
        if error.errno not in {errno.ENODEV, errno.ENOENT}:
            reason = error.strerror or str(error)
            raise KernelRefused(action=attribute.replace("_", " "), device=controller, reason=reason) from error
    finally:
        os.close(fd)


@contextlib.contextmanager
def _alone(target: str, *, exclusive: bool) -> Iterator[int]:
    """The kernel's file for new controllers, with the target's lock of it: it ends with the process, not before."""
    try:
        fd = os.open(FABRICS, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        reason = "the kernel's NVMe initiator is not loaded (modprobe nvme-tcp, or nvme-rdma)"
        raise KernelRefused(action="open", device=str(FABRICS), reason=reason) from error
    try:
        lock(fd, target, fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK)
        yield fd
    finally:
        os.close(fd)


def _disk(value: object) -> str:
    if not isinstance(value, str) or not _DISK.fullmatch(value):
        raise checks.refused(f"disk {checks.shown(value)} is no namespace")
    return value


def _target(value: object) -> str:
    if not isinstance(value, str) or not _NQN.fullmatch(value):
        raise checks.refused(f"target {checks.shown(value)} is not an NVMe qualified name")
    return value
