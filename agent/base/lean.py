"""Keeping out of memory what our libraries load and we never use. Called by commands that serve, before other imports.

Nothing depends on it: a process without it works the same, only larger and started later.
"""

from __future__ import annotations

import ctypes
import gc
import linecache

from agent.base import lean_http, lean_libraries, undocumented
from agent.base.put_off import put_off

# What is large: a tenth of what it holds are its docstrings.
_WORDY = (
    "agent", "coordinator", "sqlalchemy", "aiohttp", "pydantic", "pydantic_core", "asyncio", "email", "click",
    "structlog", "attr", "sqlite_utils", "typing_extensions", "cryptography", "urllib", "yarl", "multidict", "http",
    "oslo_policy", "oslo_context", "pluggy",
)  # fmt: skip
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # of malloc.h
_LARGE = 128 * 1024

_prepared = False


def prepare() -> None:
    """Put off libraries that are seldom used, and load the others without what is of no use to a service.

    Until `settled` is called nothing is collected: what is being loaded now is not garbage.
    """
    global _prepared
    _prepared = True
    gc.disable()
    _one_heap()
    undocumented.load(_WORDY)
    put_off()
    lean_http.load()
    lean_libraries.load()


def settled() -> None:
    """The service is up: what it has loaded stays for good, so the collector need never look through it again."""
    if _prepared:
        linecache.clearcache()  # the sources of generated methods
        _give_back()
        gc.freeze()
        # A page of an answer is some thousand objects that die without the collector: at its usual threshold of 700 it
        # would look through them several times for each page.
        gc.set_threshold(10_000, 20, 20)
        gc.enable()


def _one_heap() -> None:
    """All threads share malloc's first arena: of their own they would hold parts for what the GIL lets only one do."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        # Left to itself the limit rises with what is freed; then what was large for a moment (a page of an answer)
        # comes from the heap, too, and stays there between what lives longer.
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _give_back() -> None:
    """What loading needed for a while (the bytecode of each module) leaves whole pages that nobody uses."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
