"""Which test files run in which guest: a file may say what it needs, files with the same needs share a start."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, fields
from pathlib import Path

from tests.kernel.bench import suites
from tests.kernel.bench.machine import Machine
from tests.kernel.bench.place import ROOT

TESTS = ROOT / "tests" / "kernel"
_USUAL_S, _WORTH_A_START_S = 60, 180
_NAMES = {field.name for field in fields(Machine)}


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a guest, the test files (relative to the project) that run in it, and about how long they take."""

    machine: Machine
    files: tuple[str, ...]
    seconds: int = 0


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


def starts(files: list[Path], guests: int = 1) -> tuple[Start, ...]:
    """One start for each kind of machine, the usual one first; up to twice `guests` for those that take much longer
    than it takes to start one, with files that are about as long together: how long they take is known roughly, and a
    guest that has ended makes room for the next."""
    by_machine: dict[Machine, list[Path]] = {}
    for path in files:
        by_machine.setdefault(machine_of(path), []).append(path)
    order = sorted(by_machine, key=lambda machine: (machine != Machine(), machine.name))
    return tuple(
        Start(machine, tuple(str(path.relative_to(ROOT)) for path in part), sum(map(_seconds, part)))
        for machine in order
        for part in _divided(by_machine[machine], guests)
    )


def _seconds(path: Path) -> int:
    return suites.SECONDS.get(path.name, _USUAL_S)


def _divided(files: list[Path], guests: int) -> list[list[Path]]:
    most = 2 * guests if guests > 1 else 1
    count = max(1, min(most, sum(map(_seconds, files)) // _WORTH_A_START_S))
    parts: list[list[Path]] = [[] for _ in range(count)]
    for path in sorted(files, key=_seconds, reverse=True):
        min(parts, key=lambda part: sum(map(_seconds, part))).append(path)
    return [sorted(part, key=files.index) for part in parts if part]


def quick(path: Path) -> bool:
    """Whether it has a test that is not marked slow: a guest that would run nothing is not started."""
    text = "" if path.is_dir() else path.read_text()
    return path.is_dir() or text.count("def test_") > text.count("mark.slow")


def chosen(files: list[Path], expression: str) -> list[Path]:
    """Files in which a word of the expression occurs: a guest that would run nothing is not started at all."""
    words = set(re.findall(r"[\w.\[\]-]+", expression)) - {"and", "or", "not"}
    if not words or re.search(r"\bnot\b", expression):
        return files
    return [
        path for path in files if path.is_dir() or any(word in path.stem or word in path.read_text() for word in words)
    ]
