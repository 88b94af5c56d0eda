"""The Ceph cluster of an RBD back end: its tools, with deadlines, and what their failures mean.

Each command gets a configuration of its own making: the operator's, with the keyring and time limits behind it, so
that librados itself gives up on a cluster that is silent; what it does not notice ends with the tool's own deadline.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.backends.config import RbdBackendConfig
from agent.backends.errors import NoSpace
from agent.backends.rbd_errors import CephFailed, CephPoolMissing, ClusterDenied, ClusterHangs, KeyringUnsafe
from agent.base.errors import BrickyardError
from agent.host import cephx, tools
from agent.host.errors import ToolTimeout
from agent.host.run import Completed, run
from agent.host.tools import Tool

tools.declare(
    Tool("rbd", "ceph-common", "makes and removes volumes in a Ceph cluster"),
    Tool("ceph", "ceph-common", "asks a Ceph cluster for its room"),
)
NOT_THERE, EXISTS, BUSY, NOT_EMPTY, REFUSED = 2, 17, 16, 39, 1
LONG_S = 7 * 86400.0
"""For what copies: librados ends it where the cluster is silent."""
_GRACE_S = 15.0
_MAX_REPORT = 64 << 20
_NUMBER = re.compile(r"\((\d+)\) |\[errno (\d+)\]")
_FULL, _LATE, _DENIED = frozenset({28, 122}), frozenset({110}), frozenset({1, 13})
_ANY = range(256)
_LIMITS = """
[client.{user}]
keyring = {keyring}
rados osd op timeout = {limit}
rados mon op timeout = {limit}
client mount timeout = {limit}
rbd default clone format = 2
admin socket =
log file =
"""


@dataclass(frozen=True, slots=True)
class Monitors:
    """Address and port of each, in the form that every client knows; `messenger` is what they speak there."""

    fsid: str
    places: tuple[tuple[str, int], ...]
    messenger: Literal["v1", "v2"]


def monitors_of(told: Mapping[str, Any]) -> Monitors:
    """From what `ceph mon dump` says."""
    ends = [one["addr"].partition("/")[0].rpartition(":") for one in told["mons"]]
    places = tuple((host.strip("[]"), int(port)) for host, _, port in ends)
    by_type: dict[str, set[str]] = {}
    for one in told["mons"]:
        for each in one.get("public_addrs", {}).get("addrvec", ()):
            by_type.setdefault(str(each["type"]), set()).add(str(each["addr"]))
    newer = bool(places) and all(f"{end[0]}:{end[2]}" in by_type.get("v2", ()) for end in ends)
    return Monitors(str(told["fsid"]), places, "v2" if newer else "v1")


class RbdCluster:
    """One pool of one cluster as one user sees it. Making it writes the tools' configuration. Blocking, OSError."""

    def __init__(self, backend: str, config: RbdBackendConfig) -> None:
        self.backend, self.config, self.pool = backend, config, config.pool
        folder = config.work_dir / backend.replace("#", ".")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder.resolve()
        if config.keyring_file.stat().st_mode & 0o007:
            raise KeyringUnsafe(backend=backend, keyring=str(config.keyring_file))
        self.conf = self.folder / "ceph.conf"
        limits = _LIMITS.format(user=config.user, keyring=config.keyring_file, limit=int(config.deadline_s))
        _write(self.conf, config.conf.read_text() + limits)

    def spec(self, image: str) -> str:
        return f"{self.pool}/{image}"

    async def rbd(self, *args: str, ok: tuple[int, ...] = (), timeout: float | None = None) -> Completed:
        """One command of `rbd`; its status is 0 or one of `ok`, else it raises what that means."""
        return await self._tool("rbd", args, ok, timeout)

    async def asked(self, *args: str, none: tuple[int, ...] = ()) -> Any:
        """What `rbd` tells as JSON; None when its status is one of `none`."""
        done = await self.rbd(*args, "--format", "json", ok=none)
        return self._parsed(done.stdout) if done.returncode == 0 else None

    async def df(self) -> dict[str, Any]:
        """The pool's part of `ceph df detail`. CephPoolMissing."""
        done = await self._tool("ceph", ("df", "detail", "--format", "json"), (), None)
        pools = self._parsed(done.stdout).get("pools", ())
        found = next((one for one in pools if one.get("name") == self.pool), None)
        if found is None:
            raise CephPoolMissing(backend=self.backend, pool=self.pool, reason="there is none of that name")
        stats: dict[str, Any] = found["stats"]
        return stats

    def key(self) -> bytes:
        """The user's key, as the keyring has it. Blocking. ClusterDenied."""
        found = cephx.keys(self.config.keyring_file.read_text()).get(self.config.user)
        if not found:
            told = {"backend": self.backend, "pool": self.pool, "user": self.config.user}
            raise ClusterDenied({**told, "reason": "its keyring has no key of that user"})
        return found

    async def monitors(self) -> Monitors:
        """Who they are now."""
        told = self._parsed((await self._tool("ceph", ("mon", "dump", "--format", "json"), (), None)).stdout)
        return monitors_of(told)

    def failure(self, what: str, words: str, status: int) -> BrickyardError:
        """The error behind a tool's last words."""
        numbers = [int(one or other) for one, other in _NUMBER.findall(words)] or [status]
        reason = _last_line(words)
        told = {"backend": self.backend, "pool": self.pool, "user": self.config.user, "reason": reason}
        if "opening pool" in words:
            return CephPoolMissing({**told, "reason": "there is none of that name, or it is not the user's"})
        if _LATE & set(numbers):
            return ClusterHangs(backend=self.backend, seconds=self.config.deadline_s)
        if _FULL & set(numbers):
            return NoSpace(backend=self.backend)
        if _DENIED & set(numbers) and (status in _DENIED or "connect" in words):
            return ClusterDenied(told)
        return CephFailed(told, what=what)

    async def _tool(self, tool: str, args: tuple[str, ...], ok: tuple[int, ...], timeout: float | None) -> Completed:
        limit = self.config.deadline_s + _GRACE_S if timeout is None else timeout
        argv = [tool, "--conf", str(self.conf), "--id", self.config.user, *args]
        try:
            done = await run(argv, timeout=limit, ok=_ANY, max_output=_MAX_REPORT)
        except ToolTimeout as late:
            raise ClusterHangs(backend=self.backend, seconds=limit) from late
        if done.returncode == 0:
            return done
        words = done.stderr.decode(errors="replace")
        if done.returncode in ok and "connect" not in words and "opening pool" not in words:
            return done
        raise self.failure(f"{tool} {args[0]}", words, done.returncode)

    def _parsed(self, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            told = {"backend": self.backend, "what": "be understood", "reason": str(error)}
            raise CephFailed(told) from error


def _last_line(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[-1][-300:].rstrip(".") if lines else "it said nothing"


def _write(path: Path, text: str) -> None:
    """Whole or not at all: tools may be reading it."""
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as out:
        out.write(text)
    new.replace(path)
