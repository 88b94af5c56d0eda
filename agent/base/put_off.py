"""Modules that stand for others until something of them is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

# Loaded when something of them is used for the first time.
_SELDOM = (
    "netaddr", "rfc3986", "dateutil.tz", "dateutil.parser", "stevedore", "zipfile", "idna", "attr.validators",
    "importlib.metadata",
)  # fmt: skip


@contextmanager
def called_later(*names: str) -> Iterator[None]:
    """What is imported of these modules meanwhile are functions that load the module when they are called."""
    away = {name: was for name in names if isinstance(was := sys.modules.get(name), _Later | None)}
    for name in away:
        sys.modules[name] = _Called(name)
    try:
        yield
    finally:
        for name, was in away.items():
            if isinstance(sys.modules.get(name), _Called):
                del sys.modules[name]
                if was is not None:
                    sys.modules[name] = was


class _Called(ModuleType):
    def __getattr__(self, attribute: str) -> Callable[..., Any]:
        if attribute.startswith("__"):
            raise AttributeError(attribute)

        def call(*args: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), attribute)(*args, **options)

        return call


class _Later(ModuleType):
    """Stands for a module until something of it is asked for. (importlib's LazyLoader would load at each `import`.)"""

    def __getattr__(self, name: str) -> Any:
        own = self.__name__
        if sys.modules.get(own) is self:
            del sys.modules[own]
        real = importlib.import_module(own)
        self.__dict__.update(real.__dict__)
        return getattr(real, name)


def load_seldom() -> None:
    """Load now what was put off: it will be out of reach when it is used."""
    for name in _SELDOM:
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]
            with suppress(ImportError):  # a library that is not installed is missed where it is used
                importlib.import_module(name)


def put_off() -> None:
    """Let what is seldom used be loaded when it is."""
    for name in _SELDOM:
        if name not in sys.modules:
            sys.modules[name] = later = _Later(name)
            parent, _, own = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], own, later)
