"""What QoS specs mean for one volume: limits per GiB become limits of its size."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from agent.base.errors import Invalid
from coordinator.state import qos

_PER_GB = "_per_gb"
NUMBERS = tuple(
    f"{what}_{unit}_sec{form}"
    for what in ("read", "write", "total")
    for unit in ("iops", "bytes")
    for form in ("", "_max", _PER_GB, f"{_PER_GB}_min")
)
"""Keys whose values are whole numbers; others are handed to who enforces them as they are."""


class NotANumber(Invalid):
    code = "qos.not-a-number"
    sentence = "Invalid qos specs: {key} must be a whole number of 0 or more, not '{value}'."


def check(specs: Mapping[str, str]) -> None:
    """Raise NotANumber for a limit that is none: better now than at every attach."""
    for key, value in specs.items():
        if key in NUMBERS and not (value.isascii() and value.isdigit() and len(value) <= 18):
            raise NotANumber(key=key, value=value[:64])


def front_end(conn: Connection, volume_type_id: str | None, size: int) -> dict[str, str] | None:
    """The limits that whoever uses a volume of `size` GiB is to enforce; None when there are none."""
    found = qos.of_type(conn, volume_type_id)
    if found is None or found.consumer == "back-end" or not found.specs:
        return None
    return for_size(found.specs, size)


def for_size(specs: Mapping[str, str], size: int) -> dict[str, str]:
    """`X_per_gb` times the size, at least `X_per_gb_min`, at most `X_max`, stands for `X`.

    An `X_max` beside it is used up: to a hypervisor it would be what may be reached in bursts.
    """
    made = {key: value for key, value in specs.items() if not key.endswith((_PER_GB, f"{_PER_GB}_min"))}
    for key, value in specs.items():
        if not key.endswith(_PER_GB):
            continue
        limit = key.removesuffix(_PER_GB)
        amount = int(value) * size
        if f"{key}_min" in specs:
            amount = max(amount, int(specs[f"{key}_min"]))
        if f"{limit}_max" in specs:
            amount = min(amount, int(specs[f"{limit}_max"]))
            del made[f"{limit}_max"]
        made[limit] = str(amount)
    return made
