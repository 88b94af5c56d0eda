"""Node records of open-iscsi, written as its own tools keep them: a file of root's alone per target and portal.

Its tool would take a CHAP secret from its argument list, where everybody could read it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.host import scsi
from agent.privsep import interfaces, tool
from agent.privsep.errors import KernelRefused, SessionForeign

NODES = Path("/etc/iscsi/nodes")
_WAIT_S = 75.0
_TRIES = 100
# What no other program's records say all together. An operator who changes one value by `iscsiadm` changes no other.
_OURS = {
    "node.discovery_type": "static",
    "node.session.scan": "manual",
    "node.session.initial_login_retry_max": "2",
    "node.conn[0].timeo.login_timeout": "10",
    "node.conn[0].timeo.logout_timeout": "10",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A target at one portal; both are checked by the caller."""

    target: str
    address: str
    port: int

    @property
    def portal(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def file(self) -> Path:
        return NODES / self.target / f"{self.address},{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in. With `multipath` another path takes over soon, and no I/O is to wait for this one."""

    interface: Mapping[str, str] = field(default_factory=lambda: interfaces.lines("default"))
    multipath: bool = False
    username: str = ""
    secret: str | None = field(default=None, repr=False)


def text(node: Node, login: Login) -> str:
    """The record. What it does not say is as /etc/iscsi/iscsid.conf has it."""
    lines = {
        "node.name": node.target,
        "node.tpgt": "-1",
        "node.startup": "manual",
        "node.leading_login": "No",
        **login.interface,
        "node.session.auth.authmethod": "None" if login.secret is None else "CHAP",
    }
    if login.secret is not None:
        lines["node.session.auth.username"] = login.username
        lines["node.session.auth.password"] = login.secret
    if login.multipath:
        lines["node.session.timeo.replacement_timeout"] = "5"
    lines |= {
        "node.conn[0].address": node.address,
        "node.conn[0].port": str(node.port),
        "node.conn[0].startup": "manual",
    } | _OURS
    body = "".join(f"{key} = {value}\n" for key, value in lines.items())
    return f"# BEGIN RECORD 2.1\n{body}# END RECORD\n"


def _half_written(node: Node) -> str:
    """How the names of its files begin while they are written: beside the folder that the tools list.

    There it would be taken for a portal. What a kill or a full disk leaves has a secret, and goes with the record.
    """
    return f".brickyard-{hashlib.sha256(str(node.file).encode()).hexdigest()[:32]}-"


def own(session: scsi.Session | None) -> None:
    """SessionForeign for one that was not made here: there is no record of ours where it leads to."""
    if session is None:
        return
    node = Node(session.target, session.address, session.port)
    if not is_ours(node):
        raise SessionForeign(target=node.target, portal=node.portal, what="session")


def is_ours(node: Node) -> bool:
    """Whether its record is one that `keep` has written."""
    return _said(node.file).items() >= _OURS.items()


def _said(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text().splitlines()
    except OSError:  # others' may be folders
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}


def keep(node: Node, login: Login) -> None:
    """Write it whole, 0600. KernelRefused."""
    try:
        for folder in (NODES, node.file.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        fd, made = tempfile.mkstemp(prefix=_half_written(node), dir=NODES.parent)
        with os.fdopen(fd, "w") as out:
            out.write(text(node, login))
        Path(made).replace(node.file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise KernelRefused(action="write", device=str(node.file), reason=reason) from error


@contextlib.contextmanager
def claimed(target: str, *, alone: bool) -> Iterator[int]:
    """The lock of a target: shared by those who log in, held alone by who logs out or removes records. KernelRefused.

    Yields its descriptor. A tool that is given it holds the lock to its end, also where its daemon was killed: what it
    makes is there, and can be removed, before anybody else goes on.
    """
    folder = NODES / target
    while True:
        fd = _opened(folder)
        try:
            _lock(fd, target, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            if _is(fd, folder):  # else who held it before has removed it
                yield fd
                return
        finally:
            os.close(fd)


def _opened(folder: Path) -> int:
    """The folder's descriptor; made if need be. Who holds the lock may remove it between the two: then once more."""
    for left in reversed(range(_TRIES)):
        try:
            for each in (NODES, folder):
                each.mkdir(mode=0o700, exist_ok=True)
            return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if left and isinstance(error, FileNotFoundError | FileExistsError):
                continue
            raise KernelRefused(action="open", device=str(folder), reason=error.strerror or str(error)) from error
    raise AssertionError("the last try returns or raises")


def _is(fd: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), folder.stat())
    except FileNotFoundError:
        return False


def _lock(fd: int, target: str, kind: int) -> None:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        # The tool waits on the shared descriptor: unlike a call of ours, it gives up.
        how = "--exclusive" if kind == fcntl.LOCK_EX else "--shared"
        if tool.run("flock", [how, "--wait", str(_WAIT_S), str(fd)], timeout=_WAIT_S + 5, lock=fd).code:
            reason = "another log-in or log-out of it does not end"
            raise KernelRefused(action="lock", device=target, reason=reason) from None


def forget(node: Node) -> bool:
    """Remove it, and the target's folder with the last one; False when there was none. Nobody writes one meanwhile."""
    there = True
    for left in NODES.parent.glob(f"{_half_written(node)}*"):
        left.unlink(missing_ok=True)
    try:
        node.file.unlink()
    except (FileNotFoundError, NotADirectoryError):
        there = False
    with contextlib.suppress(OSError):
        node.file.parent.rmdir()
    return there


def portals(target: str) -> list[str]:
    """`address,port` of every record of the target that `keep` has written."""
    try:
        return sorted(entry.name for entry in (NODES / target).iterdir() if _said(entry).items() >= _OURS.items())
    except OSError:
        return []
