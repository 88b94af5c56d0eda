"""What a running process is doing: release, threads, tasks, processes, configuration. Made without taking any lock.

`on_signal` has it written at SIGUSR2 to standard error (or a file), also while the event loop is stuck in a call; the
process goes on. Secrets are hidden by the rule of `agent.base.redact`.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from pydantic import BaseModel

from agent.base.redact import redacted, redacted_text
from agent.base.release import RELEASE

_DEEPEST = 40
_settings: BaseModel | None = None


def made() -> str:
    """The report as a text, of this process; with its configuration after `on_signal`."""
    out = io.StringIO()
    for title, lines in (
        ("Package", _package()),
        ("Threads", _threads()),
        ("Tasks", _tasks()),
        ("Processes", _processes()),
        ("Configuration", _configuration()),
    ):
        out.write(f"==== {title} ====\n")
        for line in lines:
            out.write(f"{line}\n")
        out.write("\n")
    return redacted_text(out.getvalue())


def on_signal(settings: BaseModel, folder: Path | None) -> None:
    """Write a report at each SIGUSR2: into a new file of `folder`, or to standard error where that fails."""
    global _settings
    _settings = settings

    def write(_number: int, _frame: FrameType | None) -> None:
        text = made().encode()
        if folder is None or not _written(folder, text):
            _all(2, text)

    signal.signal(signal.SIGUSR2, write)


def _written(folder: Path, text: bytes) -> bool:
    path = folder / f"report-{os.getpid()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.txt"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _all(fd, text)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def _all(fd: int, text: bytes) -> None:
    """No logging, no buffers: who is stuck may hold their locks."""
    while text:
        try:
            text = text[os.write(fd, text) :]
        except OSError:
            return


def _package() -> Iterator[str]:
    yield f"brickyard {RELEASE}"
    yield f"python {sys.version.split()[0]} on {os.uname().machine}"
    yield f"time {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}"


def _threads() -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"-- thread {ident} {names.get(ident, '(not of threading)')}"
        yield from _stack(frame)


def _stack(frame: FrameType) -> Iterator[str]:
    for summary in traceback.extract_stack(frame)[-_DEEPEST:]:
        yield f"   {summary.filename}:{summary.lineno} {summary.name}"


def _tasks() -> Iterator[str]:
    try:
        tasks = asyncio.all_tasks(asyncio.get_running_loop())
    except RuntimeError:
        yield "(no event loop runs in this thread)"
        return
    for task in sorted(tasks, key=lambda each: each.get_name()):
        yield f"-- task {task.get_name()}"
        for frame in task.get_stack(limit=_DEEPEST):
            yield f"   {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"


def _processes() -> Iterator[str]:
    yield f"pid {os.getpid()}, parent {os.getppid()}, user {os.geteuid()}"
    for status in sorted(Path("/proc").glob("[0-9]*/stat")):
        try:
            pid, _, rest = status.read_text().partition(" (")
            name, _, fields = rest.rpartition(") ")
        except (OSError, ValueError):
            continue
        if fields.split()[1] == str(os.getpid()):
            yield f"child {pid} {name} ({fields.split()[0]})"


def _configuration() -> Iterator[str]:
    if _settings is not None:
        yield from _lines("", _settings.model_dump(mode="json"))


def _lines(name: str, value: object) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _lines(f"{name}.{key}" if name else str(key), inner)
        return
    yield f"{name} = {redacted(name.rpartition('.')[2], value)!r}"
