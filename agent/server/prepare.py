"""Folders, their owner, and the lock on the state directory, before the event loop runs."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from agent.base.errors import Permanent
from agent.privsep.account import Account
from agent.server.errors import AgentRunning
from agent.server.settings import AgentSettings


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
        *((f"backends.{name}.path", backend.path) for name, backend in settings.backends.items()),
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
            raise FolderUnusable(path=str(path), key=key, reason=error.strerror or str(error)) from error
    if account is not None:
        _give_files(settings.identity_dir, account)
        _give_files(settings.state_dir, account)


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
    missing = [path, *(parent for parent in path.parents if not parent.exists())] if not path.exists() else []
    for folder in reversed(missing):
        folder.mkdir(mode=0o700 if folder == path else 0o755, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if account is not None and os.fstat(fd).st_uid == 0 and (missing or not os.listdir(fd)):  # noqa: PTH208
            os.fchown(fd, account.uid, account.gid)
    finally:
        os.close(fd)


def _give_files(folder: Path, account: Account) -> None:
    """Root's own plain files directly in the folder. A second hard link may be somebody's trap: left alone."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    for name in sorted(names):
        fd = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode) and found.st_uid == 0 and found.st_nlink == 1:
                os.fchown(fd, account.uid, account.gid)
        finally:
            os.close(fd)
    status = folder.stat()
    if status.st_uid == 0:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
