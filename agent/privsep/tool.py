"""Starting a program on the privileged side: fixed path, bare environment, secret on stdin, killed when it hangs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from agent.privsep.errors import CryptUnavailable, PrivilegeTimeout, ProgramMissing

_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
# Ends the program with its daemon: none may go on writing beside a new one.
_LEASH = ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    stderr: str


def run(name: str, arguments: Sequence[str], stdin: bytes = b"", timeout: float = 120.0) -> Ended:
    """Run a program of the system's folders. CryptUnavailable or ProgramMissing, PrivilegeTimeout (seconds)."""
    program = next((f"{folder}/{name}" for folder in _FOLDERS if os.access(f"{folder}/{name}", os.X_OK)), None)
    if program is None:
        if name == "cryptsetup":
            raise CryptUnavailable(reason=f"{name} is not installed")
        raise ProgramMissing(program=name)
    leash = _LEASH if os.access(_LEASH[0], os.X_OK) else ()
    try:
        done = subprocess.run(
            [*leash, program, *arguments],
            input=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"LC_ALL": "C", "PATH": ":".join(_FOLDERS)},
            cwd="/",
            umask=0o077,
            start_new_session=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PrivilegeTimeout(verb=name, seconds=timeout) from error
    return Ended(done.returncode, done.stderr[-2000:].decode(errors="replace").strip())
