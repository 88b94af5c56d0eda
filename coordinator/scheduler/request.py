"""What is to be placed, and for which purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_FLAG, _TRUE = "capabilities:thick_provisioning_support", (["True"], ["true"])
Purpose = Literal[
    "create_volume",
    "extend_volume",
    "create_snapshot",
    "retype_volume",
    "manage_existing",
    "manage_existing_snapshot",
    "migrate_volume",
]


@dataclass(frozen=True, slots=True)
class Hints:
    """Volumes beside which, or away from which, this one shall lie: pools of them, by back end."""

    same: frozenset[str] = frozenset()
    different: frozenset[str] = frozenset()
    local_to_host: str | None = None
    query: str | None = None


def space_of(pool_id: str, cluster: str | None, pool: str) -> str:
    """What hosts of a cluster call the same: the pool of each of them is one space."""
    return pool_id if cluster is None else f"{cluster}#{pool}"


@dataclass(frozen=True, slots=True)
class Request:
    """`pool_id` pins it to the pool of its source. `device_bytes` is what it will take, header included."""

    device_bytes: int
    availability_zone: str | None = None
    pool_id: str | None = None
    extra_specs: Mapping[str, str] = field(default_factory=dict)
    hints: Hints = Hints()
    purpose: Purpose = "create_volume"
    volume: Mapping[str, Any] = field(default_factory=dict)
    qos: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Where it was refused by its host before (`space_of`), and in which words."""

    @property
    def wants_thick(self) -> bool:
        """By either name that types have for it."""
        by_flag = self.extra_specs.get("thick_provisioning_support") or self.extra_specs.get(_FLAG, "")
        return self.extra_specs.get("provisioning:type", "").strip().lower() == "thick" or (
            by_flag.split()[:1] == ["<is>"] and by_flag.split()[1:2] in _TRUE
        )
