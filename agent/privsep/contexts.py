"""The privilege contexts, each one daemon with as few capabilities as its verbs need.

`block` opens volume files of another user (DAC_OVERRIDE) and root's own loop devices (uid 0 suffices). `crypt` starts
cryptsetup: below the unit's NoNewPrivileges= a tool of root has no capability that its parent did not keep, so it keeps
device-mapper (SYS_ADMIN) and locked memory (IPC_LOCK). `net` tells the kernel's targets and initiators, and starts
the multipath tools, both of which ask for SYS_ADMIN; it sees who has a disk open before it takes it away
(SYS_PTRACE, DAC_READ_SEARCH).
`lvm` starts LVM's tools, which need what `crypt` does, and flushes the
nodes of volumes, which belong to the agent's user (DAC_OVERRIDE). `channel` sets devices of IBM Z online and starts
dasdfmt, whose order the kernel takes from SYS_ADMIN alone; it sees who has a disk open, as `net` does. `ceph` mounts
images of a cluster as files (SYS_ADMIN) for the agent's user (CHOWN), in a folder that is the agent's (DAC_OVERRIDE).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

from agent.host import sysfs
from agent.privsep import client, noeventlet

noeventlet.block()

from oslo_config import cfg  # noqa: E402
from oslo_privsep import capabilities, priv_context  # noqa: E402

Verb = TypeVar("Verb", bound=Callable[..., Any])


def _context(name: str, kept: list[int]) -> priv_context.PrivContext:
    section = client.section(name)
    made = priv_context.PrivContext(
        "agent.privsep", cfg_section=section, pypath=f"{__name__}.{name}", capabilities=kept
    )
    cfg.CONF.set_default("thread_pool_size", client.THREADS, group=section)
    return made


def _sight() -> list[int]:
    """What it takes to see the open files of root's and of others' processes, where the unit leaves it."""
    bounding = (sysfs.text(sysfs.PROC / "self/status") or "").partition("CapBnd:")[2].split()
    left = int(bounding[0], 16) if bounding else 0
    needed = [capabilities.CAP_SYS_PTRACE, capabilities.CAP_DAC_READ_SEARCH]
    return needed if all(left >> one & 1 for one in needed) else []


block = _context("block", [capabilities.CAP_DAC_OVERRIDE])
crypt = _context("crypt", [capabilities.CAP_SYS_ADMIN, capabilities.CAP_IPC_LOCK])
net = _context("net", [capabilities.CAP_SYS_ADMIN, *_sight()])
lvm = _context("lvm", [capabilities.CAP_SYS_ADMIN, capabilities.CAP_IPC_LOCK, capabilities.CAP_DAC_OVERRIDE])

channel = _context("channel", [capabilities.CAP_SYS_ADMIN, *_sight()])

ceph = _context("ceph", [capabilities.CAP_SYS_ADMIN, capabilities.CAP_DAC_OVERRIDE, capabilities.CAP_CHOWN])

BY_NAME: dict[str, priv_context.PrivContext] = {
    "block": block, "crypt": crypt, "net": net, "lvm": lvm, "channel": channel, "ceph": ceph,
}  # fmt: skip

# The daemon would log every reply at debug.
logging.getLogger("oslo_privsep.daemon").setLevel(logging.WARNING)


def privileged(context: priv_context.PrivContext) -> Callable[[Verb], Verb]:
    """Decorator: the function runs in the daemon of `context`; the caller's signature stays."""

    def wrap(func: Verb) -> Verb:
        return cast("Verb", context.entrypoint(func))

    return wrap
