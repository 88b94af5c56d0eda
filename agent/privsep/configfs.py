"""Making and removing entries of configfs, each "already so" when it is; the kernel's refusal becomes TargetRefused."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from agent.host import sysfs
from agent.privsep.errors import TargetRefused


@contextlib.contextmanager
def told(action: str) -> Iterator[None]:
    """Turn the kernel's refusals into TargetRefused. A secret is never part of what the kernel says."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
        raise TargetRefused(action=action, reason=reason) from error


def make(folder: Path) -> bool:
    """Whether it was made now."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def write(path: Path, value: str | bytes) -> None:
    """One write, as configfs wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode() if isinstance(value, str) else value)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(fd)


def want(path: Path, value: str) -> None:
    """Write unless it reads so already."""
    if sysfs.text(path) != value:
        write(path, value)


def link(place: Path, target: Path, name: str = "brickyard") -> None:
    """One link of that name in `place`."""
    with contextlib.suppress(FileExistsError):
        (place / name).symlink_to(target)


def links(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if entry.is_symlink()]
    except FileNotFoundError:
        return []


def unlink_all(folder: Path) -> None:
    for entry in links(folder):
        with contextlib.suppress(FileNotFoundError):
            entry.unlink()


def remove(folder: Path) -> bool:
    """Whether it was there; the entries that the kernel made in it go with it."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return False
    return True


def folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())
    except FileNotFoundError:
        return []
