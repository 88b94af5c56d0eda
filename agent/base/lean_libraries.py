"""Other libraries, loaded without what they load for uses that are not ours. Works without it, too."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from agent.base.put_off import called_later

# What is asked of it while our libraries are loaded; its own answers come with the 900 settings of Python's build.
_SETTINGS = {"Py_GIL_DISABLED": None, "TZPATH": "/usr/share/zoneinfo"}


def load() -> None:
    """Load pydantic, unless it is loaded."""
    _sysconfig_without_settings()
    # It would look through every installed distribution for plug-ins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    with called_later("importlib.metadata"):
        importlib.import_module("pydantic.plugin._loader")
    _schemas_without_fields()


def load_journal() -> None:
    """Load sqlite_utils, which would load numpy (20 MiB) for numbers that no journal has, and a command line."""
    modules: dict[str, Any] = sys.modules
    if "sqlite_utils" in modules:
        return
    known = "numpy" in modules
    modules.setdefault("numpy", None)
    try:
        with called_later("click"):
            importlib.import_module("sqlite_utils")
    finally:
        if not known:
            del modules["numpy"]


def _schemas_without_fields() -> None:
    """What the fields of each schema are is written down for type checkers: 80 dictionaries."""
    from pydantic_core import core_schema

    for schema in vars(core_schema).values():
        if isinstance(schema, type) and hasattr(schema, "__total__"):
            schema.__annotations__ = {}
            schema.__required_keys__ = schema.__optional_keys__ = frozenset()  # type: ignore[attr-defined]


def _sysconfig_without_settings() -> None:
    if "sysconfig" in sys.modules or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return
    import sysconfig

    ask = sysconfig.get_config_var

    def get_config_var(name: str) -> Any:
        return _SETTINGS[name] if name in _SETTINGS else ask(name)

    sysconfig.get_config_var = get_config_var
