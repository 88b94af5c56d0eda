"""The one door for commands: `run()`. Nothing else in the project starts an outside program.

A tool runs in a process group of its own and is killed by the kernel when the agent dies. It gets a fixed
environment, no input unless given, and secrets only as anonymous memory that it opens as `/dev/fd/N`. When its
time is over, or the caller is cancelled, its group gets SIGTERM and then SIGKILL, and it is reaped; what survives
even that waits inside the kernel and is reported as stuck instead of hanging the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.host import tools
from agent.host.errors import ToolFailed, ToolStuck, ToolTimeout
from agent.host.output import Collector

TERM_GRACE_S = 3.0
KILL_GRACE_S = 5.0
STDERR_LIMIT = 64 * 1024
_INHERITED = ("TMPDIR", "TZ")
_PLACEHOLDER = re.compile(r"\{secret:([A-Za-z0-9_-]+)\}")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Completed:
    """How a tool ended. `stdout` and `stderr` are bytes, secrets in `stderr` are blotted out."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    seconds: float


async def run(
    argv: Sequence[str],
    *,
    timeout: float,
    ok: Collection[int] = (0,),
    stdin: bytes | None = None,
    secrets: Mapping[str, bytes] | None = None,
    pass_fds: Collection[int] = (),
    lock_fd: int | None = None,
    on_output: Callable[[bytes], None] | None = None,
    max_output: int = 1 << 20,
    grace: float = TERM_GRACE_S,
) -> Completed:
    """Run one tool to its end, at most `timeout` seconds, and return what it said.

    `argv[0]` is a name of `agent.host.tools`. `{secret:NAME}` in an item becomes `/dev/fd/N` holding
    `secrets[NAME]`. `pass_fds` keep their numbers in the tool; `lock_fd` is inherited too, so that a lock
    outlives us in a tool that does. `on_output` sees each piece of stdout on the event loop; without it more
    than `max_output` bytes are a failure. `grace` is the time in seconds from SIGTERM to SIGKILL. Raises
    ToolMissing, ToolFailed (a status not in `ok`), ToolTimeout, ToolStuck.
    """
    loop = asyncio.get_running_loop()
    hidden = [*(secrets or {}).values(), *([stdin] if stdin else [])]
    stdout, stderr = Collector(loop, max_output, on_output), Collector(loop, STDERR_LIMIT, None)
    started = time.monotonic()
    with contextlib.closing(stdout), contextlib.closing(stderr):
        inherited = {*pass_fds, *(() if lock_fd is None else (lock_fd,))}
        what = _What(tuple(argv), stdin, secrets or {}, frozenset(inherited), stdout.open(), stderr.open())
        child = _Child()
        try:
            await uninterrupted(child.start(what))
            stdout.started()
            stderr.started()
            await asyncio.wait([child.exited], timeout=timeout)
            in_time = child.exited.done()
            await uninterrupted(child.end(0.0 if in_time else grace))
        except _Stuck:
            raise ToolStuck(command=show(argv), pid=child.pid, stderr=_tail(stderr, hidden)) from None
        except BaseException:
            with contextlib.suppress(_Stuck):
                await uninterrupted(child.end(grace))
            raise
        if not in_time:
            raise ToolTimeout(command=show(argv), timeout=timeout, stderr=_tail(stderr, hidden))
        stdout.drain()
        stderr.drain()
    if child.returncode not in ok:
        raise ToolFailed(command=show(argv), ending=_ending(child.returncode), stderr=_tail(stderr, hidden))
    if stdout.overflowed and on_output is None:
        raise ToolFailed(command=show(argv), ending=f"more than {max_output} bytes of output", stderr="")
    seconds = time.monotonic() - started
    return Completed(tuple(argv), child.returncode, stdout.head(), _blotted(stderr.tail(), hidden), seconds)


async def uninterrupted(work: Coroutine[Any, Any, _T]) -> _T:
    """Await `work` to its end although the caller is cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
        except BaseException:  # noqa: BLE001  its own failure is raised by result() below
            break
    if cancelled:
        failure = None if task.cancelled() else task.exception()
        raise asyncio.CancelledError from failure
    return task.result()


def show(argv: Sequence[str]) -> str:
    """The command line for people; secrets are placeholders in `argv` and stay so."""
    return shlex.join(argv)


class _Stuck(Exception):
    """The child outlived SIGKILL."""


class _Child:
    """A started tool: its pidfd tells the end while the process id is still ours to signal."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = self.pid = -1
        self.exited: asyncio.Future[None] = self._loop.create_future()

    async def start(self, what: _What) -> None:
        self._process = await self._loop.run_in_executor(_starter(os.getpid()), _start, what)
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    @property
    def returncode(self) -> int:
        assert self._process is not None
        assert self._process.returncode is not None
        return self._process.returncode

    async def end(self, grace: float) -> None:
        """Stop the whole group, politely for `grace` seconds when that is above 0, and reap the tool."""
        if self._process is None or self._process.returncode is not None:
            return
        if grace and not self.exited.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait([self.exited], timeout=grace)
        self._signal(signal.SIGKILL)
        await asyncio.wait([self.exited], timeout=KILL_GRACE_S)
        if not self.exited.done():
            self.exited.add_done_callback(self._reap)
            raise _Stuck
        self._reap(self.exited)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if not self.exited.done():
            self.exited.set_result(None)

    def _signal(self, number: signal.Signals) -> None:
        # Until it is reaped the id can not belong to another process, so this never hits a stranger.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _reap(self, _: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.wait()
            os.close(self._pidfd)


@dataclass(frozen=True, slots=True)
class _What:
    """What to start; `stdout` and `stderr` are the tool's ends of two pipes."""

    argv: tuple[str, ...]
    stdin: bytes | None
    secrets: Mapping[str, bytes]
    inherited: frozenset[int]
    stdout: int
    stderr: int


@functools.cache
def _starter(_pid: int) -> ThreadPoolExecutor:
    """The one thread that starts tools, in each process its own.

    Starting waits for the exec, so it is not for the event loop; and the kernel's signal on the death of the
    parent means the thread that started the tool, so that thread must live as long as the process.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="start-tool")


def _start(what: _What) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as stack:
        fds = {name: stack.enter_context(_sealed(value)) for name, value in what.secrets.items()}
        items = [_PLACEHOLDER.sub(lambda found: f"/dev/fd/{fds[found[1]]}", item) for item in what.argv[1:]]
        return subprocess.Popen(
            [tools.find("setpriv"), "--pdeathsig", "KILL", "--", tools.find(what.argv[0]), *items],
            stdin=subprocess.DEVNULL if what.stdin is None else stack.enter_context(_sealed(what.stdin)),
            stdout=what.stdout,
            stderr=what.stderr,
            pass_fds=(*what.inherited, *fds.values()),
            start_new_session=True,
            env=_environment(),
            cwd="/",
        )


@contextlib.contextmanager
def _sealed(value: bytes) -> Iterator[int]:
    """A descriptor of anonymous memory holding `value`, read from its start; closed on our side at the end."""
    fd = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        view = memoryview(value)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**kept, "LC_ALL": "C", "LANG": "C", "PATH": ":".join(tools.FOLDERS)}


def _blotted(text: bytes, hidden: Sequence[bytes]) -> bytes:
    for value in hidden:
        if len(value.strip()) >= 6:
            text = text.replace(value.strip(), b"***")
    return text


def _tail(stderr: Collector, hidden: Sequence[bytes]) -> str:
    stderr.drain()
    text = _blotted(stderr.tail(), hidden).decode(errors="replace").strip()
    return text[-1000:] or "it said nothing"


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"signal {signal.Signals(-returncode).name}"
    return f"status {returncode}"
