"""Keeps eventlet out of every process. Import this before anything of oslo or os-brick.

oslo.privsep and oslo.service load eventlet merely because it is installed, and would then behave differently.
A None entry makes such an import fail, which both take as "not there".
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

_modules = cast("dict[str, Any]", sys.modules)


def block() -> None:
    """Make `import eventlet` fail; RuntimeError when it is loaded already."""
    if _modules.get("eventlet") is not None:
        raise RuntimeError("eventlet is loaded; agent.privsep.noeventlet must be imported first")
    _modules["eventlet"] = None


@contextmanager
def unmentioned() -> Iterator[None]:
    """For oslo.rootwrap alone, which takes the mere entry in sys.modules for a loaded eventlet."""
    _modules.pop("eventlet", None)
    try:
        yield
    finally:
        block()


block()
