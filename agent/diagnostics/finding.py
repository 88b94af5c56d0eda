"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "bad", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of a check, and what to do about it (empty when nothing is to be done)."""

    check: str
    state: State
    message: str
    remedy: str = ""


def ok(check: str, message: str) -> Finding:
    return Finding(check, "ok", message)


def warning(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, "warning", message, remedy)


def bad(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, "bad", message, remedy)


def skipped(check: str, message: str) -> Finding:
    return Finding(check, "skipped", message)
