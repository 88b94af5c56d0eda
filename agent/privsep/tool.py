"""Starting a program on the privileged side: fixed path, bare environment, secret on stdin, ended when it hangs."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from agent.host.kernel import current
from agent.privsep.errors import CommandStuck, CryptUnavailable, PrivilegeTimeout, ProgramMissing

# Ends the program with its daemon: none may go on writing beside a new one.
_LEASH = ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")
# The daemon has the signals blocked that would ask a program to end.
_FREE = ("/usr/bin/env", "--default-signal", "--")
_TERM_GRACE_S, _KILL_GRACE_S = 10.0, 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    stderr: str
    stdout: str = ""


def run(
    name: str,
    arguments: Sequence[str],
    stdin: bytes = b"",
    timeout: float = 120.0,
    *,
    leashed: bool = True,
    lock: int | None = None,
) -> Ended:
    """Run a program of the system's folders. CryptUnavailable or ProgramMissing, PrivilegeTimeout (seconds).

    CommandStuck when not even SIGKILL ended it. One that is not `leashed` outlives its daemon, and is asked to end
    before it is killed: it may hold a device suspended that others wait for. One that is given a `lock` (a descriptor)
    holds it to its end, so that whoever takes the lock next has waited for it: it needs no leash, which takes longer to
    start than a small program.
    """
    program = locate(name)
    if program is None:
        if name == "cryptsetup":
            raise CryptUnavailable(reason=f"{name} is not installed")
        raise ProgramMissing(program=name)
    wrap = () if lock is not None else _LEASH if leashed else _FREE
    leash = wrap if wrap and os.access(wrap[0], os.X_OK) else ()
    child = subprocess.Popen(
        [*leash, program, *arguments],
        pass_fds=() if lock is None else (lock,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**_environment(), "LVM_SUPPRESS_FD_WARNINGS": "1"},
        cwd="/",
        umask=0o077,
        start_new_session=True,
    )
    try:
        stdout, stderr = child.communicate(stdin, timeout)
    except subprocess.TimeoutExpired as error:
        _end(child, name, timeout, polite=not leashed)
        raise PrivilegeTimeout(verb=name, seconds=timeout) from error
    return Ended(child.returncode, stderr[-2000:].decode(errors="replace").strip(), stdout.decode(errors="replace"))


def locate(name: str) -> str | None:
    """The program's path in the system's folders."""
    return next((f"{folder}/{name}" for folder in current().programs if os.access(f"{folder}/{name}", os.X_OK)), None)


def start(name: str, arguments: Sequence[str], pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a program that takes long, and ends when it is asked to; what it says, errors too, is on its stdout.

    ProgramMissing.
    """
    program = locate(name)
    if program is None:
        raise ProgramMissing(program=name)
    wraps = [wrap for wrap in (_LEASH, _FREE) if os.access(wrap[0], os.X_OK)]
    return subprocess.Popen(
        [*(word for wrap in wraps for word in wrap), program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=tuple(pass_fds),
        env=_environment(),
        cwd="/",
        umask=0o077,
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    return {"LC_ALL": "C", "PATH": ":".join(current().programs)}


def _end(child: subprocess.Popen[bytes], name: str, seconds: float, *, polite: bool) -> None:
    steps = [(child.terminate, _TERM_GRACE_S)] if polite else []
    for signal, grace in [*steps, (child.kill, _KILL_GRACE_S)]:
        signal()
        try:
            child.communicate(timeout=grace)
        except subprocess.TimeoutExpired:
            continue
        return
    # It is reaped when the kernel lets it go.
    threading.Thread(target=child.wait, daemon=True).start()
    raise CommandStuck(verb=name, pid=child.pid, seconds=seconds)
