"""How an agent gets its privileged daemons. Called first thing in `main`, before threads and the event loop.

`enter(...)` does it all: as root it starts them, asleep until their first verb is called (`agent.privsep.door`), and
becomes an ordinary user; as anyone else daemons come by sudo and oslo.rootwrap when the first verb is called, or verbs
say that they can not.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.base.errors import BrickyardError
from agent.host import lio, nvme, nvmet, rbd, scsi
from agent.privsep import account, client, limits, mapper, noeventlet
from agent.privsep.door import Door
from agent.privsep.errors import PrivilegeUnavailable
from agent.privsep.preload import environment_paths, modules_of, preload

noeventlet.block()

ROOTWRAP_CONF = Path("/etc/brickyard/rootwrap.conf")
_SUDO = ("/usr/bin/sudo", "/bin/sudo")
_LATE = (
    "pyudev", "pyroute2", "cryptography.hazmat.backends.openssl", "cryptography.hazmat.primitives.ciphers.aead",
    "prometheus_client.core",
)  # fmt: skip
_ELSEWHERE = ("agent.cli", "agent.diagnostics")
_DEATH_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Privileges:
    """`contexts`: names of the daemons that run; `reason`: why there are none, for people."""

    mode: client.Mode
    contexts: tuple[str, ...] = ()
    reason: str = ""


def wanted(*, ceph: bool = False) -> tuple[str, ...]:
    """The contexts of use here.

    `crypt` for device-mapper, `net` for transports, `lvm` and `channel` by the limits, `ceph` where a back end is in a
    cluster (the argument) and its images can be shown.
    """
    remote = (
        lio.available, scsi.iscsid_listens, scsi.multipathd_listens, nvmet.available, nvme.available, rbd.available,
    )  # fmt: skip
    chosen = {
        "block": True,
        "crypt": mapper.dm_crypt_available(),
        "net": bool(limits.current().array_ports) or any(there() for there in remote),
        "lvm": bool(limits.current().groups),
        "channel": bool(limits.current().bus_ids),
        "ceph": ceph and _shows_ceph(),
    }
    return tuple(name for name, there in chosen.items() if there)


def _shows_ceph() -> bool:
    from agent.host import fuse

    return fuse.shows_ceph()


def load_modules(names: Sequence[str]) -> None:
    """As root: load the kernel's modules of the configured targets. One that does not load is what `doctor` says."""
    from agent.privsep import tool

    for name in names:
        if not Path("/sys/module", name).exists():
            with contextlib.suppress(BrickyardError):
                tool.run("modprobe", ["-q", "--", name], timeout=30.0)


def start(
    names: Sequence[str] | None = None,
    *,
    limits_file: Path = limits.DEFAULT_FILE,
    roots: Sequence[Path] | None = None,
    groups: Sequence[str] = (),
    others: Sequence[Any] = (),
    rootwrap_conf: Path = ROOTWRAP_CONF,
    modules: Sequence[str] = (),
    ceph: bool = False,
) -> Privileges:
    """Get the daemons of the named contexts (default: `wanted()`) and of `others` (os-brick's, guarded).

    As root, starts them now; those of `others` are forked and awake. The limits are `roots` and `groups` where root
    gives them on its command line (dev, demo), else the limits file, else nothing is allowed. LimitsInvalid;
    PrivilegeUnavailable when none can be started.
    """
    if os.geteuid() != 0:
        return _by_sudo(rootwrap_conf)
    if threading.active_count() > 1:
        raise PrivilegeUnavailable(verb="start", reason="daemons must be started before the first thread")
    found = _chosen(roots, groups, limits_file)
    limits.use(found)
    mapper.load_mapper()
    load_modules(modules)
    chosen = tuple(wanted(ceph=ceph) if names is None else names)
    for context in others:
        _fork(context)
    file = None if roots is not None else limits_file
    client.set_mode("forked", doors={name: Door(name, found, file) for name in chosen})
    return Privileges("forked", chosen)


def enter(
    state_dir: Path,
    *,
    user: str = account.USER,
    dev: bool = False,
    late: Sequence[str] = (),
    names: Sequence[str] | None = None,
    limits_file: Path = limits.DEFAULT_FILE,
    roots: Sequence[Path] | None = None,
    groups: Sequence[str] = (),
    others: Sequence[Any] = (),
    modules: Sequence[str] = (),
    ceph: bool = False,
) -> Privileges:
    """All in the right order: check the account, start daemons, import `late` where it could not be read later, drop.

    Not as root it is `start` alone. `dev`: `nobody` serves where there is no such user. AccountInvalid, LimitsInvalid.
    """
    if os.geteuid() != 0:
        return start(names)
    chosen = account.choose(user, dev=dev)
    account.check(chosen, state_dir)
    readable = account.reads_all(chosen, environment_paths())
    privileges = start(
        names, limits_file=limits_file, roots=roots, groups=groups, others=others, modules=modules, ceph=ceph
    )
    if not readable:
        preload([*late_modules(), *late])
    account.drop(chosen, state_dir)
    return privileges


def start_direct(
    roots: Sequence[Path] | None = None, limits_file: Path = limits.DEFAULT_FILE, groups: Sequence[str] = ()
) -> Privileges:
    """For a short command run by root: verbs run in this process."""
    from agent.privsep import contexts

    limits.use(_chosen(roots, groups, limits_file))
    for context in contexts.BY_NAME.values():
        context.set_client_mode(False)
    client.set_mode("direct")
    return Privileges("direct", tuple(contexts.BY_NAME))


def limits_again() -> None:
    """Let the daemons read the limits file again; each checks it as root did at the start. Blocking.

    A file that is refused leaves the old limits in force, which the log says. Daemons that sleep read it when they
    wake; where root gave the limits on its command line there is nothing to read.
    """
    if client.mode() != "forked":
        return
    from agent.base.log import get_logger
    from agent.privsep import contexts, relimit

    for name, verb in relimit.BY_CONTEXT.items():
        if name in client.doors() and contexts.BY_NAME[name].channel is not None:
            try:
                client.invoke(verb)
            except BrickyardError as error:
                get_logger(__name__).error("the limits are refused, the old ones stay", context=name, reason=str(error))


def watch(on_death: Callable[[str], None]) -> None:
    """Call `on_death(context)` from a thread when a daemon ends: without it the agent must end, too."""
    doors = {door.life: name for name, door in client.doors().items()}
    if doors:
        threading.Thread(target=_await_ends, args=(doors, on_death), daemon=True).start()


def late_modules() -> list[str]:
    """All of ours that an agent might load while it serves, and what those load late."""
    return [*modules_of("agent", but=_ELSEWHERE), *_LATE]


def _fork(context: Any) -> None:
    from oslo_privsep import daemon, priv_context

    # The daemon ends when its socket closes. A Ctrl-C meant for the agent must not take it away before.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEATH_SIGNALS)
    try:
        context.start(priv_context.Method.FORK)
    except daemon.FailedToDropPrivileges as error:
        raise PrivilegeUnavailable(verb="start", reason=str(error)) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _chosen(roots: Sequence[Path] | None, groups: Sequence[str], file: Path) -> limits.Limits:
    return limits.with_groups(limits.of_roots(roots), groups) if roots is not None else _limits(file)


def _limits(path: Path) -> limits.Limits:
    try:
        return limits.read(path)
    except FileNotFoundError:
        return limits.Limits()


def _by_sudo(conf: Path) -> Privileges:
    sudo = next((path for path in _SUDO if os.access(path, os.X_OK)), "")
    rootwrap = Path(sys.prefix) / "bin" / "oslo-rootwrap"
    missing = [
        what
        for what, there in (
            ("sudo is not installed", bool(sudo)),
            (f"{conf} is missing", conf.is_file()),
            (f"{rootwrap} is missing", rootwrap.is_file()),
        )
        if not there
    ]
    if missing:
        reason = "it does not run as root, and " + ", ".join(missing)
        client.set_mode("none", reason)
        return Privileges("none", reason=reason)
    from oslo_config import cfg

    from agent.privsep import contexts

    helper = [sudo, "-n", str(rootwrap), str(conf), str(Path(sys.prefix) / "bin" / "python3")]
    for context in contexts.BY_NAME.values():
        command = shlex.join([*helper, "-I", "-m", "agent.privsep.helper"])  # the library adds context and socket
        cfg.CONF.set_override("helper_command", command, group=context.cfg_section)
    client.set_mode("rootwrap")
    return Privileges("rootwrap", tuple(contexts.BY_NAME))


def _await_ends(doors: dict[int, str], on_death: Callable[[str], None]) -> None:
    poll = select.poll()
    for life in doors:
        poll.register(life, 0)  # a hang-up is always told
    while doors:
        for life, _ in poll.poll():
            poll.unregister(life)
            on_death(doors.pop(life))
