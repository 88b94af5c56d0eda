"""The ordinary user that an agent started as root becomes; checked before, verified after."""

from __future__ import annotations

import ctypes
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.privsep.errors import AccountInvalid

USER = "brickyard"
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL = 47, 4


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int


def choose(name: str = USER, *, dev: bool = False) -> Account:
    """The account of that name; in dev mode `nobody` where it does not exist. AccountInvalid."""
    for candidate in (name, "nobody") if dev else (name,):
        try:
            found = pwd.getpwnam(candidate)
        except KeyError:
            continue
        if found.pw_uid == 0:
            raise AccountInvalid(user=candidate, reason="it is root")
        return Account(candidate, found.pw_uid, found.pw_gid)
    raise AccountInvalid(user=name, reason="there is no such user")


def check(account: Account, state_dir: Path) -> None:
    """Try, in a child that became the account, whether it can use the state directory. AccountInvalid, naming it."""
    if _denied(account, [(state_dir, os.R_OK | os.W_OK | os.X_OK)]):
        raise AccountInvalid(user=account.name, reason=f"it can not read and write {state_dir}")


def reads_all(account: Account, paths: Sequence[Path]) -> bool:
    """Whether the account can read all these folders (the interpreter's, our packages')."""
    return not _denied(account, [(path, os.R_OK | os.X_OK) for path in paths])


def drop(account: Account, home: Path) -> None:
    """Become the account for good. AccountInvalid when root could still be regained (the caller must end)."""
    become(account)
    os.environ.update(HOME=str(home), USER=account.name, LOGNAME=account.name)


def become(account: Account) -> None:
    """setgroups, setresgid, setresuid, no new privileges; then prove that there is no way back."""
    os.setgroups([])
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    libc.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0:
        raise AccountInvalid(user=account.name, reason="the kernel refused no_new_privs")
    regained = True
    try:
        os.setuid(0)
    except PermissionError:
        regained = False
    if regained or os.getresuid() != (account.uid,) * 3 or os.getresgid() != (account.gid,) * 3 or _capable():
        raise AccountInvalid(user=account.name, reason="privileges were left over after the change of user")


def _capable() -> bool:
    """Whether any capability is permitted or effective still."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return any(int(line.split()[1], 16) for line in lines if line.startswith(("CapPrm:", "CapEff:", "CapAmb:")))


def _denied(account: Account, wanted: Sequence[tuple[Path, int]]) -> bool:
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            become(account)
            code = 0 if all(os.access(path, mode) for path, mode in wanted) else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) != 0
