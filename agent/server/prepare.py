"""Folders, their owner, and the lock on the state directory, before the event loop runs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path, PurePosixPath

from agent.base.errors import Permanent
from agent.privsep.account import Account
from agent.server.errors import AgentRunning
from agent.server.settings import AgentSettings

_MAX_LINKS = 40


class FolderUnusable(Permanent):
    code = "agent.folder-unusable"
    exit_code = 73
    sentence = "The folder {path} ({key}) can not be used: {reason}."
    hint = "Create it for the agent's user, or name another one."


def folders(settings: AgentSettings) -> list[tuple[str, Path]]:
    """Everything that the agent writes to: configuration key and folder."""
    named = [
        ("agent.state_dir", settings.state_dir),
        ("agent.state_dir", settings.identity_dir),
        ("agent.state_dir", settings.lock_dir),
        ("images.spool", settings.spool_dir),
        *((f"backends.{name}.path", path) for name, path in settings.folders.items()),
        *((f"backends.{name}.work_dir", path) for name, path in settings.work_dirs.items()),
    ]
    if settings.images_dir is not None:
        named.append(("images.store", settings.images_dir))
    return named


def make_folders(settings: AgentSettings, account: Account | None) -> None:
    """Make what is missing (0700). Started by root, what is new or still empty is given to the account.

    Files of an enrolment that root did by hand are given to it, too. FolderUnusable.
    """
    for key, path in folders(settings):
        try:
            _make(path, account)
        except OSError as error:
            if key.startswith("backends."):
                continue  # its back end says so when it is opened, and is tried again; others work
            raise FolderUnusable(path=str(path), key=key, reason=error.strerror or str(error)) from error
    if account is None:
        return
    for path in (settings.identity_dir, settings.state_dir):
        try:
            _give_files(path, account)
        except OSError as error:
            raise FolderUnusable(path=str(path), key="agent.state_dir", reason=error.strerror or str(error)) from error


def make_backend_folders(settings: AgentSettings) -> None:
    """At a reload, as the agent's own user: what can not be made its back end says."""
    for path in (*settings.folders.values(), *settings.work_dirs.values()):
        with contextlib.suppress(OSError):
            _make(path, None)


def lock_state(state_dir: Path) -> int:
    """Take the state directory for this process: a descriptor to keep open. AgentRunning names who has it."""
    fd = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise AgentRunning(pid=pid, path=str(state_dir)) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _make(path: Path, account: Account | None) -> None:
    fd, made = _reach(path, trusting=account is None)
    try:
        if account is not None and os.fstat(fd).st_uid == 0 and (made or not os.listdir(fd)):  # noqa: PTH208
            os.fchown(fd, account.uid, account.gid)
    finally:
        os.close(fd)


def _give_files(folder: Path, account: Account) -> None:
    """Root's own plain files directly in the folder. A second hard link may be somebody's trap: left alone."""
    folder_fd, _ = _reach(folder, trusting=False)
    try:
        with os.scandir(folder_fd) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        for name in sorted(names):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder_fd)
            try:
                found = os.fstat(fd)
                if stat.S_ISREG(found.st_mode) and found.st_uid == 0 and found.st_nlink == 1:
                    os.fchown(fd, account.uid, account.gid)
            finally:
                os.close(fd)
        if os.fstat(folder_fd).st_uid == 0:
            os.fchown(folder_fd, account.uid, account.gid)
    finally:
        os.close(folder_fd)


def _reach(path: Path, *, trusting: bool) -> tuple[int, bool]:
    """A descriptor of the folder, made where it is missing, and whether the last part was made.

    Walked name by name: parts of the way belong to the agent's user, who could lead root elsewhere by a symbolic
    link. Not `trusting`, only root's own links are followed (ELOOP).
    """
    parts = list(reversed(path.absolute().parts[1:]))
    here, made, links = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), False, 0
    try:
        while parts:
            name = parts.pop()
            made = _mkdir(here, name, 0o755 if parts else 0o700)
            there = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            found = os.fstat(there)
            if stat.S_ISLNK(found.st_mode):
                target = PurePosixPath(os.readlink("", dir_fd=there))
                os.close(there)
                links += 1
                if links > _MAX_LINKS or not (trusting or found.st_uid == 0):
                    raise OSError(errno.ELOOP, f"{name} is a symbolic link that is not root's")
                there = os.open("/" if target.is_absolute() else ".", os.O_PATH | os.O_CLOEXEC, dir_fd=here)
                parts += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            here, last = there, here
            os.close(last)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here), made
    finally:
        os.close(here)


def _mkdir(folder_fd: int, name: str, mode: int) -> bool:
    try:
        os.mkdir(name, mode, dir_fd=folder_fd)
    except FileExistsError:
        return False
    return True
