"""Whether a capability is what an extra spec of a volume type asks for, by the operators that Cinder's types use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda has, wants: has >= wants,  # "at least", as it always was
    "==": lambda has, wants: has == wants,
    "!=": lambda has, wants: has != wants,
    ">=": lambda has, wants: has >= wants,
    "<=": lambda has, wants: has <= wants,
}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "s==": lambda has, wants: has == wants,
    "s!=": lambda has, wants: has != wants,
    "s<": lambda has, wants: has < wants,
    "s<=": lambda has, wants: has <= wants,
    "s>": lambda has, wants: has > wants,
    "s>=": lambda has, wants: has >= wants,
}
_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})


ZONES = "RESKEY:availability_zones"
"""The extra spec that lists where a type can be had, with commas between."""


def zones(extra_specs: Mapping[str, str]) -> tuple[str, ...] | None:
    """The availability zones of a type, in its order; None where it is bound to none."""
    if ZONES not in extra_specs:
        return None
    return tuple(name.strip() for name in extra_specs[ZONES].split(",") if name.strip())


def lacking(capabilities: Mapping[str, Any], extra_specs: Mapping[str, str]) -> str | None:
    """The first spec that is not met, as `key=value`; None when all are."""
    for key, wanted in extra_specs.items():
        scope, colon, name = key.partition(":")
        if not colon:
            name = key
        elif scope != "capabilities":
            continue
        if name in {"multiattach", "cacheable"} and not _truth(wanted.removeprefix("<is>")):
            continue
        if not matches(_nested(capabilities, name), wanted):
            return f"{key}={wanted}"
    return None


def matches(has: Any, wanted: str) -> bool:
    """A list of values matches when one of them does; texts are compared without regard to case."""
    if isinstance(has, Sequence) and not isinstance(has, str):
        return any(matches(one, wanted) for one in has)
    words = wanted.split()
    sign, rest = (words[0], words[1:]) if words else ("", [])
    if sign == "<is>":
        return bool(rest) and _truth(has) == _truth(rest[0])
    if has is None:
        return False
    if sign == "<or>":
        return _text(has) in {word.lower() for word in rest if word != "<or>"}
    if sign in {"<in>", "<all-in>"}:
        return bool(rest) and all(word.lower() in _text(has) for word in rest if word != sign)
    if sign in _TEXTS:
        return bool(rest) and _TEXTS[sign](_text(has), rest[0].lower())
    if sign in _NUMBERS:
        try:
            return _NUMBERS[sign](float(has), float(rest[0]))
        except (ValueError, TypeError, IndexError):
            return False
    if isinstance(has, bool):
        return has == _truth(wanted)
    return _text(has) == wanted.strip().lower()


def _nested(capabilities: Mapping[str, Any], name: str) -> Any:
    """`capabilities:a:b` looks for b in what a holds."""
    found: Any = capabilities
    for part in name.split(":"):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().lower() in _TRUE


def _text(value: Any) -> str:
    return str(value).strip().lower()
