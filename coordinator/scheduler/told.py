"""What hosts tell of their pools beside figures. Most pools of a site say the same: it is kept once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

# Different for each pool, and kept in it.
_FIGURES = frozenset({"backend", "name", "total_bytes", "free_bytes", "allocated_bytes", "foreign_bytes"})


@dataclass(frozen=True, eq=False)
class Told:
    """`common` under Cinder's names and those of the wire; `own` in the operator's words, which come before others."""

    common: Mapping[str, Any]
    own: Mapping[str, Any]

    @property
    def has_functions(self) -> bool:
        """Whether the back end brings an expression of its own."""
        told = {**self.common, **self.own}
        return bool(told["filter_function"] or told["goodness_function"])


_known: WeakValueDictionary[str, Told] = WeakValueDictionary()


def shared(reported: Mapping[str, Any], *, thin: bool, thick: bool) -> Told:
    """From what a host reported of a pool; the same object for pools that say the same."""
    common = {
        **{
            name: value
            for name, value in reported.items()
            if name not in _FIGURES and isinstance(value, bool | int | float | str)
        },
        "vendor_name": "Brickyard",
        "driver_version": "1",
        "storage_protocol": list(reported.get("protocols") or ["local"]),
        "thin_provisioning_support": thin,
        "thick_provisioning_support": thick,
        "multiattach": bool(reported.get("multiattach", False)),
        "QoS_support": bool(reported.get("qos", False)),
        "filter_function": reported.get("filter_function") or None,
        "goodness_function": reported.get("goodness_function") or None,
    }
    own = dict(reported.get("capabilities") or {})
    key = repr((common, own))
    found = _known.get(key)
    if found is None:
        found = _known[key] = Told(common, own)
    return found
