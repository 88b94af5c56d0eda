"""Which tests run in which guest: a file may say what it needs, files with the same needs share a start, and one that
takes long is divided (see `tests.kernel.bench.parts`)."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, fields
from pathlib import Path

from tests.kernel.bench import suites
from tests.kernel.bench.machine import Machine
from tests.kernel.bench.place import ROOT

TESTS = ROOT / "tests" / "kernel"
_USUAL_S, _WORTH_A_START_S, _LONG_S = 30, 130, 120
_NAMES = {field.name for field in fields(Machine)}


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a guest, the test files (relative to the project) that run in it, and about how long they take.

    `parts` holds those of which only some tests run, as FILE=K/N.
    """

    machine: Machine
    files: tuple[str, ...]
    seconds: int = 0
    parts: tuple[str, ...] = ()


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


@dataclass(frozen=True, slots=True)
class _Piece:
    """The tests `number`, `number` + `of`, ... of a file."""

    file: str
    seconds: int
    number: int = 0
    of: int = 1


def starts(files: list[Path], guests: int = 1) -> tuple[Start, ...]:
    """One start for each kind of machine, the usual one first; up to twice `guests` for those that take much longer
    than it takes to start one, with files that are about as long together: how long they take is known roughly, and a
    guest that has ended makes room for the next."""
    by_machine: dict[Machine, list[Path]] = {}
    for path in files:
        by_machine.setdefault(machine_of(path), []).append(path)
    order = sorted(by_machine, key=lambda machine: (machine != Machine(), machine.name))
    return tuple(_start(machine, pieces) for machine in order for pieces in _divided(by_machine[machine], guests))


def _start(machine: Machine, pieces: list[_Piece]) -> Start:
    return Start(
        machine,
        tuple(dict.fromkeys(piece.file for piece in pieces)),
        sum(piece.seconds for piece in pieces),
        tuple(f"{piece.file}={piece.number}/{piece.of}" for piece in pieces if piece.of > 1),
    )


def _pieces(path: Path, *, whole: bool) -> list[_Piece]:
    name, seconds = str(path.relative_to(ROOT)), suites.SECONDS.get(path.name, _USUAL_S)
    count = 1 if whole else -(-seconds // _LONG_S)
    return [_Piece(name, seconds // count, number, count) for number in range(count)]


def _divided(files: list[Path], guests: int) -> list[list[_Piece]]:
    pieces = [piece for path in files for piece in _pieces(path, whole=guests == 1)]
    most = 2 * guests if guests > 1 else 1
    count = max(1, min(most, sum(piece.seconds for piece in pieces) // _WORTH_A_START_S))
    if count == 1:
        return [[piece for path in files for piece in _pieces(path, whole=True)]]
    bins: list[list[_Piece]] = [[] for _ in range(count)]
    for piece in sorted(pieces, key=lambda piece: -piece.seconds):
        min(bins, key=lambda each: sum(other.seconds for other in each)).append(piece)
    return [sorted(each, key=pieces.index) for each in bins if each]


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
