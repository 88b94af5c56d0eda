"""Verbs of the iSCSI initiator: node records, sessions, SCSI addresses.

A record is written as a file of root's alone, so that a CHAP secret is never in an argument list. Only hosts, sessions
and disks that belong to iSCSI can be reached, and only sessions that were made here are ended: those with a record of
ours, which stays as long as they do. Tools answer in their own time; each has a limit.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.host import facts, scsi, sysfs
from agent.privsep import checks, cutting, devices, interfaces, noderecord, scsi_writes, tool
from agent.privsep.contexts import net, privileged
from agent.privsep.errors import DeviceHeld, KernelRefused, LoginFailed, LoginRefused, SessionForeign

_NAME = re.compile(r"(iqn\.\d{4}-\d{2}\.[A-Za-z0-9.:_-]{1,205}|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32})")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"\d{1,5}:\d{1,3}:\d{1,10}:\d{1,5}")
_EXISTS, _REFUSED, _NONE = 15, 24, 21  # exit codes of iscsiadm
_LOGIN_S, _LOGOUT_S = 60.0, 60.0
_LUNS = 1 << 14


@privileged(net)
def initiator_name() -> str:
    """This host's iSCSI name, which root alone may read; empty when it has none."""
    return facts.initiator_iqn() or ""


@privileged(net)
def iscsi_login(
    target: str,
    address: str,
    port: int,
    lun: int,
    *,
    username: str = "",
    secret: bytes | None = None,
    multipath: bool = False,
    interface: str = "default",
) -> bool:
    """Write the node record, log in, and let the kernel look at exactly one LUN unless it knows a disk there.

    True: it has looked, and remembers nothing of an earlier volume at that LUN. False: it knows a disk, or the session
    ended at once. LoginRefused (CHAP or access), LoginFailed (no answer), InterfaceUnknown, SessionForeign,
    KernelRefused, VerbRefused.
    """
    number = checks.number(lun, "LUN", _LUNS)
    node = noderecord.Node(_target(target), *_portal(address, port))
    login = noderecord.Login(interfaces.lines(_plain(interface, "interface")), checks.flag(multipath, "multipath"))
    if secret is not None:
        login = replace(login, username=_plain(username, "CHAP user"), secret=_chap(secret))
    with noderecord.claimed(node.target, alone=False) as lock:
        if not noderecord.is_ours(node) and (what := _of_others(node)):
            raise SessionForeign(target=node.target, portal=node.portal, what=what)
        noderecord.keep(node, login)
        _log_in(node, lock)
    return _looked(node, number)


@privileged(net)
def iscsi_login_again(target: str, address: str, port: int, lun: int) -> bool:
    """The same by the record that an earlier `iscsi_login` wrote. KernelRefused without one; else as `iscsi_login`."""
    number = checks.number(lun, "LUN", _LUNS)
    node = noderecord.Node(_target(target), *_portal(address, port))
    if not noderecord.is_ours(node):
        raise KernelRefused(action="log in again to", device=node.target, reason=f"{node.file} is gone, or not ours")
    with noderecord.claimed(node.target, alone=False) as lock:
        _log_in(node, lock)
    return _looked(node, number)


def _of_others(node: noderecord.Node) -> str:
    """What there is of a target that has no record of ours: this system itself may run from it."""
    if scsi.session_at(node.target, (node.address, node.port)) is not None:
        return "session"
    return "node record" if node.file.exists() else ""


def _log_in(node: noderecord.Node, lock: int) -> None:
    ended = _iscsiadm("-m", "node", "-T", node.target, "-p", node.portal, "--login", timeout=_LOGIN_S, lock=lock)
    if ended.code == _REFUSED:
        raise LoginRefused(target=node.target, portal=node.portal)
    if ended.code not in {0, _EXISTS}:
        raise LoginFailed(target=node.target, portal=node.portal, reason=_said(ended))


def _looked(node: noderecord.Node, lun: int) -> bool:
    session = scsi.session_at(node.target, (node.address, node.port))
    if session is None or session.disk(lun) is not None:
        return False
    _scan(session.host, 0, session.target_id, lun)
    return True


@privileged(net)
def iscsi_logout(session: int, target: str, disk: str = "") -> bool:
    """Flush and remove the session's last disk (its address), then end the session; False when it is gone already.

    DeviceHeld, SessionForeign (nothing was changed), KernelRefused.
    """
    number, name = checks.number(session, "session"), _target(target)
    found = next((one for one in scsi.sessions(name) if one.number == number), None)
    if found is None:
        return False
    noderecord.own(found)
    if disk:
        _delete(disk, flush=True)
    with noderecord.claimed(name, alone=True) as lock:
        ended = _iscsiadm("-m", "session", "-r", str(number), "--logout", timeout=_LOGOUT_S, lock=lock)
    if ended.code not in {0, _NONE} and any(one.number == number for one in scsi.sessions(name)):
        raise KernelRefused(action="log out of", device=name, reason=_said(ended))
    return True


@privileged(net)
def iscsi_forget(target: str, portals: Sequence[tuple[str, int]]) -> bool:
    """Remove the node records that log-ins at these portals wrote; False when there was none. KernelRefused.

    A log-in that still goes on ends first: look for its session afterwards. The record of a session that is there
    stays: it says whose that is.
    """
    if not isinstance(portals, (list, tuple)) or not all(
        isinstance(one, (list, tuple)) and len(one) == 2 for one in portals
    ):
        raise checks.refused("the list of portals has another form")
    name = _target(target)
    nodes = [noderecord.Node(name, *_portal(*one)) for one in portals]
    if not (noderecord.NODES / name).exists():
        return False
    with noderecord.claimed(name, alone=True):
        return sum(noderecord.forget(node) for node in nodes if _over(node)) > 0


def _over(node: noderecord.Node) -> bool:
    """Whether nothing needs its record, and none is there that is somebody else's."""
    if node.file.exists() and not noderecord.is_ours(node):
        return False
    return scsi.session_at(node.target, (node.address, node.port)) is None


@privileged(net)
def iscsi_records(target: str) -> list[str]:
    """The portals (`address,port`) at which this target has a record of ours: sessions there were made here."""
    return noderecord.portals(_target(target))


@privileged(net)
def iscsi_give_up(session: int) -> bool:
    """Let a broken session fail its I/O now instead of after its time-out; False when it is gone. SessionForeign."""
    number = checks.number(session, "session")
    noderecord.own(scsi.session(number))
    try:
        (sysfs.SYS / "class/iscsi_session" / f"session{number}" / "recovery_tmo").write_text("1")
    except OSError:
        return False
    return True


@privileged(net)
def scsi_scan(host: int, channel: int, target_id: int, lun: int) -> None:
    """Let the kernel look at exactly one address of an iSCSI host. KernelRefused, VerbRefused."""
    numbers = [
        checks.number(value, noun, below)
        for value, noun, below in (
            (host, "host", 1 << 16), (channel, "channel", 256), (target_id, "target", 1 << 31), (lun, "LUN", _LUNS),
        )
    ]  # fmt: skip
    if not (sysfs.SYS / "class/iscsi_host" / f"host{numbers[0]}").exists():
        raise checks.refused(f"host{numbers[0]} is no iSCSI host")
    _scan(*numbers)


def _scan(host: int, channel: int, target_id: int, lun: int) -> None:
    scan = sysfs.SYS / "class/scsi_host" / f"host{host}" / "scan"
    scsi_writes.write(scan, f"{channel} {target_id} {lun}", "scan", f"host{host}")


@privileged(net)
def scsi_rescan(address: str) -> int:
    """Let the kernel read size and identity of a disk anew; returns bytes. KernelRefused."""
    folder = _disk_folder(address)
    scsi_writes.write(folder / "rescan", "1", "rescan", address)
    return scsi.disk(address).size


@privileged(net)
def scsi_delete(address: str, flush: bool) -> bool:
    """Remove one disk that nothing stands on; False when it is gone. DeviceHeld, SessionForeign.

    With `flush`: a disk that was handed out; it is flushed first, and stays if a process has it open.
    """
    return _delete(address, checks.flag(flush, "flush"))


@privileged(net)
def scsi_cut(address: str) -> bool:
    """Remove one disk although somebody uses it: what is read and written from now on fails. False when it is gone.

    SessionForeign.
    """
    try:
        folder = _disk_folder(address)
    except KernelRefused:
        return False
    found = scsi.disk(address)
    noderecord.own(scsi.session_of(found.name) if found.name else None)
    if found.name:
        cutting.spare_system(found.name)
    if found.name and found.state == "running":
        with contextlib.suppress(KernelRefused):  # what can not be written now never will be
            devices.flush(found.name)
    scsi_writes.write(folder / "delete", "1", "remove", address, fine=scsi_writes.GONE)
    return True


def _delete(address: str, flush: bool) -> bool:
    try:
        folder = _disk_folder(address)
    except KernelRefused:
        return False
    name = scsi.disk(address).name
    if name:
        noderecord.own(scsi.session_of(name))
        holders = sysfs.users_of(name)
        if holders:
            raise DeviceHeld(device=f"/dev/{name}", holders=", ".join(holders))
        if flush:
            devices.closed(name)
            devices.flush(name)
    # The kernel may be dropping it by itself just now, with a session that its target ended.
    scsi_writes.write(folder / "delete", "1", "remove", address, fine=scsi_writes.GONE)
    return True


def _disk_folder(address: object) -> Path:
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise checks.refused(f"address {checks.shown(address)} is no SCSI address")
    folder = sysfs.SYS / "class/scsi_device" / address / "device"
    if not folder.exists():
        raise KernelRefused(action="find", device=address, reason="there is no such disk")
    if not any(part.startswith("session") for part in folder.resolve().parts):
        raise checks.refused(f"disk {address} belongs to no iSCSI session")
    return folder


def _iscsiadm(*arguments: str, timeout: float, lock: int) -> tool.Ended:
    # Where the daemon does not run, the tool starts it, and the lock would be the daemon's for good.
    return tool.run("iscsiadm", arguments, timeout=timeout, lock=lock if scsi.iscsid_listens() else None)


def _said(ended: tool.Ended) -> str:
    return ended.stderr.splitlines()[-1] if ended.stderr else f"exit code {ended.code}"


def _target(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise checks.refused(f"target {checks.shown(value)} is not an iSCSI name")
    return value


def _portal(address: object, port: object) -> tuple[str, int]:
    return checks.address(address), checks.number(port, "port", 1 << 16)


def _plain(value: object, noun: str) -> str:
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise checks.refused(f"{noun} {checks.shown(value)} is not a plain name")
    return value


def _chap(value: object) -> str:
    if not isinstance(value, bytes) or not re.fullmatch(rb"[!-~]{1,255}", value):
        raise checks.refused("the CHAP secret is not printable")
    return value.decode("ascii")
