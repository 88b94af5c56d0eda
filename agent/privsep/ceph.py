"""Verbs that show an image of a Ceph cluster as a file of this host, by FUSE: only root may mount.

A `qemu-storage-daemon` does the work. It is told monitors, user and key and nothing else: a configuration that the
agent has written could make a client of Ceph that runs as root write its log anywhere. It mounts upon the very file
that was looked at, in a folder that root's limits name, and ends with this daemon.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import select
import stat
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from agent.host.mounts import mounts
from agent.privsep import checks, tool
from agent.privsep.beneath import open_beneath, open_folder
from agent.privsep.contexts import ceph as context
from agent.privsep.contexts import privileged
from agent.privsep.errors import ShowFailed, VerbRefused

_NAME = re.compile(r"by[vsp]-(?P<id>[0-9a-f-]{36})")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_END_S = 10.0
_CONF = """[global]
rados osd op timeout = {limit}
rados mon op timeout = {limit}
client mount timeout = {limit}
log file =
admin socket =
"""
_libc = ctypes.CDLL(None, use_errno=True)
_daemons: dict[str, subprocess.Popen[bytes]] = {}
_lock = threading.Lock()


@privileged(context)
def rbd_show(
    path: str,
    pool: str,
    who: tuple[str, bytes],
    monitors: Sequence[tuple[str, int]],
    *,
    writable: bool,
    deadline_s: int,
) -> None:
    """Show the image of the pool that is called like the file at `path`, an empty one of the agent's.

    `who` is a user and its key in base64, as keyrings have it; a cluster that is silent for `deadline_s` is an error of
    whoever reads or writes. Shown already, by a process of this daemon: VerbRefused. ShowFailed tells why not.
    """
    root, relative = _place(path)
    user, key = who
    for word in (pool, user):
        if not isinstance(word, str) or not _WORD.fullmatch(word):
            raise VerbRefused(reason=f"{checks.shown(word)} is no name of a pool or user")
    servers = [
        {"host": checks.address(host), "port": str(checks.number(port, "port", 65536))} for host, port in monitors
    ]
    checks.flag(writable, "writable")
    secret = checks.secret(key)
    checks.number(deadline_s, "deadline", 601)
    with _lock:
        if path in _daemons:
            raise VerbRefused(reason="it is shown already")
    with contextlib.ExitStack() as stack:
        fd = _opened(root, relative)
        stack.callback(os.close, fd)
        found = os.fstat(fd)
        hidden = _memory(stack, secret)
        conf = _memory(stack, _CONF.format(limit=deadline_s).encode())
        drive = {
            "driver": "rbd", "node-name": "volume", "pool": pool, "image": Path(path).name, "user": user,
            "conf": f"/proc/self/fd/{conf}", "server": servers, "auth-client-required": ["cephx"], "key-secret": "key",
            "discard": "unmap", "read-only": not writable,
        }  # fmt: skip
        argv = _options(drive, f"/proc/self/fd/{fd}", f"/proc/self/fd/{hidden}", writable)
        daemon = tool.start("qemu-storage-daemon", argv, pass_fds=(fd, hidden, conf))
    words = _greeted(daemon, deadline_s)
    if words is None:
        # The file is root's at first: the agent's user gets it.
        with contextlib.suppress(OSError):
            os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)
        with _lock:
            _daemons[path] = daemon
        return
    _ended(daemon)
    _unmounted(path, force=True)
    raise ShowFailed(reason=words)


@privileged(context)
def rbd_hide(path: str, force: bool) -> bool:
    """Take the file away, and its daemon. False when somebody has it open, unless `force`. Once more is fine."""
    _place(path)
    checks.flag(force, "force")
    if not _unmounted(path, force=force):
        return False
    with _lock:
        daemon = _daemons.pop(path, None)
    if daemon is not None:
        _ended(daemon)
    return True


def mounted(path: str) -> bool:
    """Whether something is mounted at exactly that path."""
    return any(mount.point == path for mount in mounts())


def _place(path: object) -> tuple[str, str]:
    """(allowed root, path beneath it) of an image's file. VerbRefused."""
    found = _NAME.fullmatch(path.rpartition("/")[2]) if isinstance(path, str) else None
    if found is None or not isinstance(path, str):
        raise VerbRefused(reason=f"path {checks.shown(path)} is not that of an image")
    root, relative = checks.volume_path(f"{path.rpartition('/')[0]}/{found['id']}")
    return root, str(Path(relative).with_name(found[0]))


def _opened(root: str, relative: str) -> int:
    """A reference to the file, which can not be exchanged any more. VerbRefused."""
    try:
        folder = open_folder(root)
        try:
            fd = open_beneath(folder, relative, os.O_RDONLY)
        finally:
            os.close(folder)
    except OSError as error:
        raise VerbRefused(reason=f"{relative} can not be opened ({error})") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size or found.st_nlink != 1:
        os.close(fd)
        raise VerbRefused(reason=f"{relative} is not an empty file")
    return fd


def _memory(stack: contextlib.ExitStack, content: bytes) -> int:
    """A descriptor of memory that holds it, to be read by name."""
    fd = os.memfd_create("ceph", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, content)
    return fd


def _options(drive: dict[str, object], mountpoint: str, secret: str, writable: bool) -> list[str]:
    export = {"type": "fuse", "id": "file", "node-name": "volume", "mountpoint": mountpoint, "writable": writable}
    # What the monitor says first is said once everything before it on the line is in place.
    return [
        "--object", f"secret,id=key,format=base64,file={secret}",
        "--blockdev", json.dumps(drive), "--export", json.dumps(export),
        "--chardev", "stdio,id=ready", "--monitor", "chardev=ready",
    ]  # fmt: skip


def _greeted(daemon: subprocess.Popen[bytes], seconds: int) -> str | None:
    """None once it says that all is in place, else its last words."""
    assert daemon.stdout is not None
    said, deadline = b"", time.monotonic() + seconds
    while b'"QMP"' not in said:
        ready, _, _ = select.select([daemon.stdout], [], [], max(0.0, deadline - time.monotonic()))
        more = os.read(daemon.stdout.fileno(), 65536) if ready else b""
        said += more
        if not ready:
            return "timed out"
        if not more:
            return said.decode(errors="replace").strip()[-1000:] or "it ended without a word"
    return None


def _unmounted(path: str, *, force: bool) -> bool:
    while mounted(path):
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if force else 0)
        if _libc.umount2(os.fsencode(path), ctypes.c_int(flags)) == 0:
            continue
        number = ctypes.get_errno()
        if number == errno.EBUSY:
            return False
        if number != errno.EINVAL:
            raise ShowFailed(reason=f"it can not be unmounted: {os.strerror(number)}")
        break
    return True


def _ended(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(_END_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        threading.Thread(target=daemon.wait, daemon=True).start()
    if daemon.stdout is not None:
        daemon.stdout.close()
