"""Which test files run in which guest: a file may say what it needs, files with the same needs share a start."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, fields
from pathlib import Path

from tests.kernel.bench.machine import Machine
from tests.kernel.bench.place import ROOT

TESTS = ROOT / "tests" / "kernel"
_NAMES = {field.name for field in fields(Machine)}


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a guest and the test files (relative to the project) that run in it."""

    machine: Machine
    files: tuple[str, ...]


def machine_of(path: Path) -> Machine:
    """What the module's `MACHINE = {...}` asks for. ValueError when that is not a literal with known names."""
    if path.is_dir():
        return Machine()
    for node in ast.parse(path.read_text()).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "MACHINE" for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            wanted = ast.literal_eval(node.value)
            if unknown := set(wanted) - _NAMES:
                raise ValueError(f"{path}: MACHINE knows {sorted(_NAMES)}, not {sorted(unknown)}")
            if "disks" in wanted:
                wanted["disks"] = tuple(wanted["disks"])
            return Machine(**wanted)
    return Machine()


def starts(files: list[Path]) -> tuple[Start, ...]:
    """One start for each kind of machine, the usual one first."""
    by_machine: dict[Machine, list[str]] = {}
    for path in files:
        by_machine.setdefault(machine_of(path), []).append(str(path.relative_to(ROOT)))
    order = sorted(by_machine, key=lambda machine: (machine != Machine(), machine.name))
    return tuple(Start(machine, tuple(by_machine[machine])) for machine in order)


def chosen(files: list[Path], expression: str) -> list[Path]:
    """Files in which a word of the expression occurs: a guest that would run nothing is not started at all."""
    words = set(re.findall(r"[\w.\[\]-]+", expression)) - {"and", "or", "not"}
    if not words or re.search(r"\bnot\b", expression):
        return files
    return [
        path for path in files if path.is_dir() or any(word in path.stem or word in path.read_text() for word in words)
    ]
