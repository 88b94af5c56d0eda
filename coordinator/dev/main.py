"""`brickyard dev`: a whole site in the foreground, on embedded defaults.

What coordinator and agents both need is imported once; they are forked from there and load the rest side by side.
This process then becomes the small supervisor of `coordinator.dev.supervisor` by exec.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

from agent.base import lean
from coordinator.dev import supervisor
from coordinator.dev.child import COORDINATOR, become
from coordinator.dev.site import DevSite

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGENT_TABLES = frozenset({"agent", "backends", "jobs", "images", "privsep"})
# Loaded by coordinator and agent alike.
_COMMON = (
    "aiohttp.web", "agent.base.aside", "agent.base.metrics", "agent.privsep.account", "agent.wire.client",
    "agent.wire.joining", "concurrent.futures.thread", "encodings.idna", "sqlite3",
)  # fmt: skip


def run_dev(site: DevSite, sets: tuple[str, ...]) -> NoReturn:
    """Run until Ctrl-C or SIGTERM. `sets` go to the part whose table they name (`log`: both). Does not return."""
    lean.prepare()
    site.write()
    for_coordinator = tuple(item for item in sets if _table(item) not in _AGENT_TABLES)
    for_agents = tuple(item for item in sets if _table(item) in _AGENT_TABLES | {"log"})
    _refuse_early(site, for_coordinator, for_agents)
    for name in _COMMON:
        __import__(name)
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    children: list[tuple[str, int, int, str]] = []
    for name in (COORDINATOR, *site.hosts):
        _fork(site, name, for_coordinator if name == COORDINATOR else for_agents, children)
    again = [sys.executable, "-I", "-m", "coordinator.dev.child", str(site.folder), str(site.port), str(site.agents)]
    plan = [str(site.openrc), *(str(word) for child in children for word in child), "--", *again]
    os.execv(sys.executable, [sys.executable, "-I", "-S", _script(), *plan])  # noqa: S606


def _script() -> str:
    """The supervisor, compiled where it is: compiling needs memory that is never given back."""
    source, compiled = Path(str(supervisor.__file__)), getattr(supervisor, "__cached__", None)
    return str(compiled) if compiled and _is_of(Path(compiled), source) else str(source)


def _is_of(compiled: Path, source: Path) -> bool:
    """Whether bytecode was made from the source as it is now; importing checks that, starting a file does not."""
    try:
        head, made_from = compiled.read_bytes()[:16], source.stat()
    except OSError:
        return False
    stamp = struct.pack("<III", 0, int(made_from.st_mtime) & 0xFFFFFFFF, made_from.st_size & 0xFFFFFFFF)
    return head == importlib.util.MAGIC_NUMBER + stamp


def _refuse_early(site: DevSite, for_coordinator: tuple[str, ...], for_agents: tuple[str, ...]) -> None:
    """A wrong key is told before anything is started."""
    from agent.base.config import load
    from agent.server.settings import AgentSettings
    from coordinator.server.settings import CoordinatorSettings

    load(CoordinatorSettings, site.coordinator_file, for_coordinator)
    for host in site.hosts:
        load(AgentSettings, site.agent_file(host), for_agents)


def _fork(site: DevSite, name: str, sets: tuple[str, ...], children: list[tuple[str, int, int, str]]) -> None:
    """Add to `children`: name, pid, our end of its socket (it stays open over the exec), and its overrides as JSON."""
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        ours.close()
        for _, _, fd, _ in children:
            os.close(fd)
        become(site, name, sets, theirs)
    theirs.close()
    fd = ours.detach()
    os.set_inheritable(fd, True)
    children.append((name, pid, fd, json.dumps(sets)))


def main() -> NoReturn:
    """Started by the command: argv holds the site and the overrides."""
    folder, port, agents, *sets = sys.argv[1:]
    try:
        run_dev(DevSite(Path(folder), int(port), int(agents)), tuple(sets))
    except Exception as error:  # noqa: BLE001 - a person at a terminal gets a sentence
        from agent.base.terminal.entry import told

        sys.exit(told(error))


def _table(item: str) -> str:
    return item.partition("=")[0].partition(".")[0]


if __name__ == "__main__":
    main()
