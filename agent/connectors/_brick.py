"""The only door to os-brick, loaded late, and the guard in front of what its daemon would run as root.

os-brick brings verbs that run any command, and create and delete any link, as root. `contexts()` replaces them,
before its daemon is forked, by versions that only accept what `rootwrap.d/` lists; helpers of transports that are
not served (files of RBD, ScaleIO, LightOS) can not be reached at all.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.base.errors import BrickyardError
from agent.connectors.errors import BrickUnavailable
from agent.privsep import noeventlet
from agent.privsep.errors import VerbRefused

FILTERS = Path("/etc/brickyard/rootwrap.d")
_EXEC_DIRS = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
_KWARGS = frozenset({"check_exit_code", "timeout", "attempts", "interval", "process_input", "raise_timeout"})
_LINK = re.compile(r"/dev/disk/by-id/(os-brick[A-Za-z0-9_.+-]{1,200}|scsi-[A-Za-z0-9_.-]{1,200})")
_DEVICE = re.compile(r"/dev/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}){0,2}")
_UNSERVED = ("rbd", "scaleio", "lightos")
_loading = threading.Lock()


def load() -> Any:
    """The package, with the threading back end chosen first. BrickUnavailable when it is not installed."""
    with _loading:
        noeventlet.block()
        try:
            from oslo_service import backend

            backend.init_backend(backend.BackendType.THREADING)
            import os_brick
        except ImportError as error:
            raise BrickUnavailable(reason=str(error)) from error
        return os_brick


def contexts(filters: Path = FILTERS) -> tuple[Any, ...]:
    """os-brick's privilege contexts, guarded; give them to `agent.privsep.start.start(others=…)`."""
    load()
    from os_brick import privileged

    guard(filters)
    return (privileged.default,)


def guard(filters: Path) -> None:
    """Replace os-brick's three open verbs in this process and so in daemons forked from it. Safe to repeat."""
    load()
    from os_brick import privileged
    from os_brick.privileged import rootwrap

    blocked: dict[str, Any] = sys.modules
    for name in _UNSERVED:
        blocked[f"os_brick.privileged.{name}"] = None
    original = rootwrap.custom_execute

    def execute_root(*cmd: str, **kwargs: Any) -> Any:
        argv = checked_command(cmd, kwargs, filters)
        return original(*argv, **kwargs)

    for name, func in (("execute_root", execute_root), ("unlink_root", _unlink_root), ("link_root", _link_root)):
        setattr(rootwrap, name, _entrypoint(privileged.default, func, rootwrap.__name__, name))


def checked_command(cmd: tuple[object, ...], kwargs: dict[str, Any], filters: Path) -> list[str]:
    """The command with the program's full path, when a filter allows it. VerbRefused."""
    if not cmd or not all(isinstance(part, str) and "\0" not in part and "\n" not in part for part in cmd):
        raise VerbRefused(reason="a command is a list of plain strings")
    if set(kwargs) - _KWARGS:
        raise VerbRefused(reason=f"option {sorted(set(kwargs) - _KWARGS)[0][:64]!r} is not allowed with a command")
    plain = [str(part) for part in cmd]
    if any(".." in part.split("/") for part in plain):
        raise VerbRefused(reason="a path with '..' is not allowed in a command")
    with noeventlet.unmentioned():
        from oslo_rootwrap import wrapper
    try:
        match = wrapper.match_filter(_trusted_filters(filters), plain, exec_dirs=_EXEC_DIRS)
    except (wrapper.NoFilterMatched, wrapper.FilterMatchNotExecutable) as error:
        raise VerbRefused(reason=f"no filter allows to run {plain[0][:64]!r} like this") from error
    return [str(part) for part in match.get_command(plain, exec_dirs=_EXEC_DIRS)]


def _trusted_filters(folder: Path) -> list[Any]:
    with noeventlet.unmentioned():
        from oslo_rootwrap import wrapper
    for place in (folder, *folder.glob("*")):
        found = place.stat()
        if found.st_uid != 0 or found.st_mode & 0o022:
            raise VerbRefused(reason=f"{place} is not root's alone")
    # The library adds one filter that no file asked for; its program would serve unguarded contexts as root.
    return [found for found in wrapper.load_filters([str(folder)]) if found.name != "privsep-helper"]


def _unlink_root(*links: object, no_errors: bool = False, raise_at_end: bool = False) -> None:
    for link in (_checked(link, _LINK, "link") for link in links):
        if not Path(link).is_symlink():
            if no_errors:
                continue
            raise VerbRefused(reason=f"{link} is not a symbolic link")
        os.unlink(link)  # noqa: PTH108


def _link_root(target: object, link_name: object, force: bool = True) -> None:
    device, link = _checked(target, _DEVICE, "device"), Path(_checked(link_name, _LINK, "link"))
    if force and link.is_symlink():
        link.unlink()
    link.symlink_to(device)


def _checked(value: object, form: re.Pattern[str], noun: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        shown = repr(value)[:200] if isinstance(value, str) else type(value).__name__
        raise VerbRefused(reason=f"{noun} {shown} is not one that os-brick may touch")
    return value


def _entrypoint(context: Any, func: Callable[..., Any], module: str, name: str) -> Any:
    """The library finds a verb in its daemon by module and name, so ours takes those of the one it replaces."""

    @functools.wraps(func)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        except (TypeError, OSError) as error:
            if isinstance(error, BrickyardError):
                raise
            raise VerbRefused(reason=f"{name} failed: {error}") from error

    guarded.__module__, guarded.__name__, guarded.__qualname__ = module, name, name
    return context.entrypoint(guarded)
