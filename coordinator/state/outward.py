"""What users may read of an error: without the names of the site's hosts and pools, its paths and addresses.

Whoever may see where a volume lies reads errors whole, from the operation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent.base.errors import BrickyardError, Remote, from_body

# What an exception says that nobody expected may hold anything.
_UNSPEAKABLE = frozenset({"internal", "job.defect"})
_INSIDE = frozenset({"host", "hosts", "home", "pool", "backend", "group"})
_PATH = re.compile(r"(?<![\w:/.])/(?:[\w.@+#-]+/)+[\w.@+#-]*")
_ADDRESS = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.])")
_HOST = re.compile(r"\b([Hh]ost) [\w.-]*[\w-]")
_THEIRS = "Try again later, or ask whoever runs the site."
_RULE = re.compile(r"\[(\w+)\]")


def told(error: BrickyardError) -> tuple[str, str]:
    """Its sentence and its hint; both empty where nothing of it can be told."""
    if error.code in _UNSPEAKABLE:
        return "", ""
    if error.code.startswith("scheduler.") and "reasons" in error.context:
        return _unplaced(str(error.context["reasons"]))
    if isinstance(error, Remote):
        values = error.context.get("body", {}).get("context") or {}
        names = [str(values[key]) for key in _INSIDE & values.keys() if values[key]]
        said = [without(text, names) for text in (str(error), error.remedy)]
    else:
        clean = from_body({"code": error.code, "context": _clean(error.context)})
        said = [str(clean), clean.remedy]
    words, hint = (_ADDRESS.sub("(address)", _PATH.sub("(path)", text)) for text in said)
    return words, _THEIRS if any(f"({key})" in hint for key in _INSIDE) else hint


def sentence(error: BrickyardError) -> str:
    """Something in any case, for an error that repeats another one."""
    return told(error)[0] or "An unknown error occurred."


def without(text: str, names: Iterable[str | None]) -> str:
    """Free words of another error without these names."""
    known = sorted({re.escape(name) for name in names if name}, key=len, reverse=True)
    return re.sub(rf"(?<![\w-])(?:{'|'.join(known)})(?![\w-])", "(host)", text) if known else text


def waiting(reason: str) -> str:
    """What an operation waits for."""
    return _HOST.sub(r"\1 (host)", reason)


def body(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored error in the same form."""
    error = from_body(stored)
    return {**stored, "message": sentence(error), "hint": told(error)[1], "context": {}}


def _clean(context: Mapping[str, Any]) -> dict[str, Any]:
    """An error that repeats others says in `KEY_told` what users may read of its `KEY`."""
    inside = {key: f"({key})" if key in _INSIDE else value for key, value in context.items()}
    return inside | {key: inside[f"{key}_told"] for key in context if f"{key}_told" in context}


def _unplaced(reasons: str) -> tuple[str, str]:
    rules = ", ".join(sorted(set(_RULE.findall(reasons))))
    return (
        f"No pool of this site fits it now{f' [{rules}]' if rules else ''}.",
        "Choose another size, type, zone or hint; whoever runs the site sees why with: brickyard operation list.",
    )
