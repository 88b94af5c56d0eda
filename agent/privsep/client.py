"""Calling privileged verbs from the agent: off the event loop, with a deadline, with errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from agent.privsep import noeventlet
from agent.privsep.errors import DaemonLost, PrivilegeTimeout, PrivilegeUnavailable

if TYPE_CHECKING:
    from agent.privsep.door import Door

noeventlet.block()

Mode = Literal["forked", "rootwrap", "direct", "none"]
P = ParamSpec("P")
R = TypeVar("R")
_NOTICED_S = 5.0
THREADS = 16
"""Calls at once in each context, and of them its daemon works on as many."""


@dataclass(slots=True)
class _Privilege:
    """How verbs reach root in this process; set once by `start`."""

    mode: Mode = "none"
    reason: str = "it was started without them"
    pools: dict[str, ThreadPoolExecutor] = field(default_factory=dict)
    doors: Mapping[str, Door] = field(default_factory=dict)


_privilege = _Privilege()


def set_mode(mode: Mode, reason: str = "", doors: Mapping[str, Door] | None = None) -> None:
    """`doors`: the daemons that sleep until they are called, by the name of their context."""
    _privilege.mode, _privilege.reason, _privilege.doors = mode, reason, doors or {}


def doors() -> Mapping[str, Door]:
    return _privilege.doors


def mode() -> Mode:
    """forked: daemons started by root; rootwrap: by sudo at the first verb; direct: this process is root; none."""
    return _privilege.mode


async def call(verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a verb in its daemon. The verb's own errors, PrivilegeUnavailable, PrivilegeTimeout, DaemonLost.

    A call that is cancelled or out of time goes on in the daemon: verbs may be called again.
    """
    work = asyncio.get_running_loop().run_in_executor(_pool(verb), lambda: invoke(verb, *args, **kwargs))
    seconds = 180.0
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise PrivilegeTimeout(verb=name_of(verb), seconds=seconds) from error


def invoke(verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The blocking form of `call`, without a deadline."""
    from oslo_privsep.daemon import FailedToDropPrivileges

    context: Any = getattr(verb, "privsep_entrypoint", None)
    if context is None:
        raise TypeError(f"{verb!r} is no privileged verb")
    if _privilege.mode == "none":
        raise PrivilegeUnavailable(verb=name_of(verb), reason=_privilege.reason)
    if _privilege.mode == "forked":
        awake(context, name_of(verb))
    try:
        return verb(*args, **kwargs)
    except (FailedToDropPrivileges, FileNotFoundError) as error:
        raise PrivilegeUnavailable(verb=name_of(verb), reason=f"the helper did not start ({error})") from error
    except OSError as error:
        if _ended(context.channel, error):
            raise DaemonLost(context=context.cfg_section) from error
        raise


def _ended(channel: Any, error: OSError) -> bool:
    """Whether the daemon is gone. A call that finds the line broken may be back before the line's reader knows."""
    if channel is not None and isinstance(error, ConnectionError):
        channel.reader_thread.join(_NOTICED_S)
    return channel is not None and not channel.running


def awake(context: Any, verb: str = "a verb") -> None:
    """Wake the context's daemon if it sleeps. PrivilegeUnavailable when there is none, DaemonLost."""
    # Left alone, the library would try sudo for a daemon that was never started, or has ended.
    if context.channel is None:
        name = next((name for name in _privilege.doors if context.cfg_section == section(name)), None)
        if name is None:
            raise PrivilegeUnavailable(verb=verb, reason=f"no daemon {context.cfg_section} was started")
        _privilege.doors[name].open(context)
    if not context.channel.running:
        raise DaemonLost(context=context.cfg_section)


def section(name: str) -> str:
    """What the library calls the context of this name."""
    return f"privsep_brickyard_{name}"


def _pool(verb: Callable[..., Any]) -> ThreadPoolExecutor:
    """Threads of the verb's own context: where tools hang they hold up no verb of another one."""
    section = str(getattr(getattr(verb, "privsep_entrypoint", None), "cfg_section", ""))
    if section not in _privilege.pools:
        _privilege.pools[section] = ThreadPoolExecutor(THREADS, thread_name_prefix="privsep")
    return _privilege.pools[section]


def name_of(verb: Callable[..., Any]) -> str:
    """`loop_attach` for the verb of that name (a partial of the library, whose first argument is the function)."""
    bound = getattr(verb, "args", ())
    return str(getattr(bound[0] if bound else verb, "__name__", verb))
