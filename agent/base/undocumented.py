"""Loading libraries without their docstrings, as `python -OO` does, which would drop assertions and our own words, too.

The bytecode stays where and what it is; what it says about itself is left out while it is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from inspect import CO_NEWLOCALS
from opcode import opmap
from types import CodeType, ModuleType

_STORE_NAME, _EXTENDED_ARG = opmap["STORE_NAME"], opmap["EXTENDED_ARG"]
_LOADS = {opmap[name] for name in ("LOAD_CONST", "RETURN_CONST") if name in opmap}
_HAS_DOCSTRING = 0x4000000  # a flag of code since Python 3.13


def load(packages: Collection[str]) -> None:
    """From now on, what is imported of these packages has no docstrings. What is loaded already stays."""
    sys.meta_path.insert(0, _Finder(frozenset(packages)))


class _Finder:
    def __init__(self, packages: frozenset[str]) -> None:
        self._packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in self._packages:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        code = super().get_code(fullname)
        return code if code is None else without_docstrings(code)


def without_docstrings(code: CodeType) -> CodeType:
    """The same code, with None for the docstring of the module, and of each class and function in it."""
    changed: dict[int, CodeType | None] = {}
    where = _docstring(code)
    if where is not None:
        changed[where] = None
    for at, const in enumerate(code.co_consts):
        if type(const) is CodeType:
            inner = without_docstrings(const)
            if inner is not const:
                changed[at] = inner
    if not changed:
        return code
    return code.replace(co_consts=tuple(changed.get(at, const) for at, const in enumerate(code.co_consts)))


def _docstring(code: CodeType) -> int | None:
    """Which constant is the docstring and nothing else."""
    if not code.co_flags & CO_NEWLOCALS:
        return _stored(code)
    if sys.version_info >= (3, 13):
        documented = bool(code.co_flags & _HAS_DOCSTRING)
    else:
        documented = not code.co_name.startswith("<")  # of a comprehension the first constant is any
    if not documented or not code.co_consts or not isinstance(code.co_consts[0], str):
        return None
    return None if _uses(code.co_code, 0) else 0


def _stored(code: CodeType) -> int | None:
    """Of a module or class: the constant that is stored as `__doc__`."""
    if "__doc__" not in code.co_names:
        return None
    body = code.co_code
    at = next(_places(body, _STORE_NAME, code.co_names.index("__doc__")), 0)
    if at < 4 or body[at - 2] not in _LOADS or body[at - 4] == _EXTENDED_ARG:
        return None
    const = body[at - 1]
    return const if isinstance(code.co_consts[const], str) and _uses(body, const) == 1 else None


def _uses(body: bytes, const: int) -> int:
    """How often the constant is loaded."""
    return sum(1 for operation in _LOADS for _ in _places(body, operation, const))


def _places(body: bytes, operation: int, argument: int) -> Iterator[int]:
    """Where this instruction is; of arguments above 255, which have a prefix, none is found."""
    instruction = bytes((operation, argument)) if argument <= 0xFF else b""
    at = body.find(instruction) if instruction else -1
    while at >= 0:
        if at % 2 == 0 and (at == 0 or body[at - 2] != _EXTENDED_ARG):
            yield at
        at = body.find(instruction, at + 1)
