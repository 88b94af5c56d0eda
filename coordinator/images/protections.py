"""Properties of images that not everybody may change on volumes: Glance's own file, read with Glance's meaning.

Each section is a regular expression for names, tried in order at their beginning; its lines say who may create, read,
update and delete. A name that no section fits, and an operation that its section leaves out, is for nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.base.config import ConfigError
from coordinator.images.errors import PropertyProtected

Operation = Literal["create", "update", "delete"]
_KNOWN = ("create", "read", "update", "delete")
_ALL, _NONE = "@", "!"


@dataclass(frozen=True, slots=True)
class Asking:
    """Who wants to change something: its roles, and what policy says of it."""

    roles: frozenset[str]
    may: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Protections:
    """The rules in order; `by_policy`: they name rules of the policy instead of roles."""

    rules: tuple[tuple[re.Pattern[str], Mapping[str, frozenset[str]]], ...]
    by_policy: bool = False

    @classmethod
    def from_file(cls, path: Path, *, by_policy: bool, known: Callable[[str], bool]) -> Protections:
        """Raises ConfigError for a file that can not be read or understood; `known`: whether policy has such a rule."""
        import configparser

        parser = configparser.ConfigParser(strict=True, interpolation=None, default_section="")
        try:
            parser.read_string(path.read_text())
        except OSError as error:
            raise _wrong(path, error.strerror or "it can not be read") from None
        except (configparser.Error, UnicodeDecodeError) as error:
            raise _wrong(path, " ".join(str(error).split())) from None
        rules = tuple((_pattern(path, name), _allowed(path, name, parser[name])) for name in parser.sections())
        if not rules:
            raise _wrong(path, "it has no section")
        for who in {who for _, allowed in rules for each in allowed.values() for who in each}:
            if by_policy and who not in {_ALL, _NONE} and not known(who):
                raise _wrong(path, f"there is no policy rule {who}")
        return cls(rules, by_policy)

    def check(self, asking: Asking, operation: Operation, name: str) -> None:
        """Raise PropertyProtected unless it may be done."""
        if not self._may(asking, operation, name):
            raise PropertyProtected(name=name[:255], operation=operation)

    def _may(self, asking: Asking, operation: Operation, name: str) -> bool:
        allowed = next((allowed for pattern, allowed in self.rules if pattern.match(name)), {})
        who = allowed.get(operation, frozenset())
        if _NONE in who:
            return False
        if _ALL in who:
            return True
        if self.by_policy:
            return any(map(asking.may, who))
        return not {role.lower() for role in who}.isdisjoint(role.lower() for role in asking.roles)


def _pattern(path: Path, name: str) -> re.Pattern[str]:
    try:
        return re.compile(name)
    except re.error as error:
        raise _wrong(path, f"[{name}] is no regular expression ({error})") from None


def _allowed(path: Path, section: str, given: Mapping[str, str]) -> dict[str, frozenset[str]]:
    if unknown := sorted(set(given) - set(_KNOWN)):
        raise _wrong(path, f"[{section}] has {', '.join(unknown)}, which is none of {', '.join(_KNOWN)}")
    found = {}
    for operation, text in given.items():
        who = frozenset(part.strip() for part in text.split(",") if part.strip())
        if {_ALL, _NONE} & who and len(who) > 1:
            raise _wrong(path, f"[{section}] {operation}: {_ALL} and {_NONE} stand alone")
        found[operation] = who
    return found


def _wrong(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        where="[images]", key="property_protections", problem=f"{path} can not be used: {problem}",
        remedy="Correct the file (sections are regular expressions, lines are create, read, update, delete), or leave "
        "it out: then every property can be changed",
    )  # fmt: skip
