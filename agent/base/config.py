"""Configuration: one TOML file, overridden by `--set key=value`, checked by pydantic models.

Whatever is wrong is told with file, line, key and remedy, all of it at once. The models describe every key, so that
the reference page is generated from them (`agent.base.configdoc`).
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.base.errors import Invalid

if TYPE_CHECKING:
    import ssl

    from agent.base.configerrors import Problem

Model = TypeVar("Model", bound=BaseModel)
_MAX_SECRET = 64 * 1024


class Section(BaseModel):
    """Base of every table of a configuration file: frozen, no unknown keys, each key described."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        bare = [name for name, field in cls.model_fields.items() if not field.description]
        if bare:
            raise TypeError(f"{cls.__qualname__}: no description for {', '.join(bare)}")


class ConfigError(Invalid):
    """The configuration can not be used. The first problem is told in full; `problems` holds all of them."""

    code = "config.invalid"
    sentence = "{where}: {key}: {problem}."
    hint = "{remedy}"

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> ConfigError:
        first = problems[0]
        error = cls(
            where=first.where, key=first.key, problem=first.problem, remedy=first.remedy,
            others=[str(problem) for problem in problems[1:]],
        )  # fmt: skip
        error.problems = tuple(problems)
        return error

    problems: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.context.get("others", ())])


class SecretUnreadable(Invalid):
    """A file that should hold a secret is missing, open to others, empty or too large."""

    code = "config.secret-unreadable"
    sentence = "The secret {name} can not be read from {path}: {problem}."
    hint = "{remedy}"


def load(model: type[Model], path: Path | None, sets: Sequence[str] = ()) -> Model:
    """The settings of `path` (None: all defaults) with `sets` (`dotted.key=value`, last one wins) on top.

    A value is TOML (`8776`, `true`, `["a"]`); what is not TOML is taken as a bare string. Raises `ConfigError`.
    """
    text = _read(path)
    raw = _parsed(path, text)
    origins: dict[tuple[str, ...], str] = {}
    for item in sets:
        origins[_override(raw, item)] = item
    try:
        return model.model_validate(raw)
    except ValidationError as failure:
        from agent.base.configerrors import explain

        raise ConfigError.of(explain(failure, model, raw=raw, path=path, text=text, origins=origins)) from None
    except Invalid as failure:
        where = str(path or "--set")
        raise ConfigError(where=where, key="a value", problem=str(failure).rstrip("."), remedy=failure.remedy) from None


def trust(ca_file: Path | None, where: str) -> ssl.SSLContext | None:
    """A client's context that believes `ca_file`, which the table `where` names; None without a file. ConfigError."""
    if ca_file is None:
        return None
    import ssl

    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            where=where,
            key="ca_file",
            problem=f"{ca_file} can not be used: {error.strerror or error}",
            remedy="Name a file of PEM certificates that the coordinator can read",
        ) from None


def read_secret(name: str, path: Path | None = None) -> bytes:
    """The bytes of a secret file: `path` when given, else the systemd credential `name`.

    A file outside the credentials folder must be readable by its owner alone. Raises `SecretUnreadable`.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    where = path if path is not None else (Path(folder) / name if folder else None)
    if where is None:
        raise SecretUnreadable(
            name=name, path=f"the credential {name}", problem="systemd passed no credentials",
            remedy=f"Add LoadCredential={name}:/path to the unit, or name a file in the configuration.",
        )  # fmt: skip
    is_credential = folder is not None and where.parent == Path(folder)
    try:
        with where.open("rb") as source:
            status = os.fstat(source.fileno())
            _check_secret_file(name, where, status, is_credential)
            content = source.read(_MAX_SECRET + 1)
    except OSError as failure:
        raise SecretUnreadable(
            name=name, path=str(where), problem=failure.strerror or str(failure),
            remedy="Create the file, owned by the service's user, with mode 0400.",
        ) from None  # fmt: skip
    if not 0 < len(content) <= _MAX_SECRET:
        raise SecretUnreadable(
            name=name, path=str(where), problem="it is empty" if not content else "it is larger than 64 KiB",
            remedy="Write the secret alone into the file.",
        )  # fmt: skip
    return content


def _check_secret_file(name: str, where: Path, status: os.stat_result, is_credential: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        problem, remedy = "it is not a regular file", "Name a regular file."
    elif status.st_mode & 0o077 and not is_credential:
        problem = f"others may read it (mode {stat.S_IMODE(status.st_mode):04o})"
        remedy = f"Run: chmod 0400 {where}"
    else:
        return
    raise SecretUnreadable(name=name, path=str(where), problem=problem, remedy=remedy)


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        remedy = "Create the file, name another one, or give its user the right to read it."
        raise ConfigError(
            where=str(path), key="the file", problem=f"can not be read: {reason}", remedy=remedy
        ) from None


def _parsed(path: Path | None, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        from agent.base.configerrors import not_toml

        raise ConfigError.of([not_toml(path, text, failure)]) from None


def _override(raw: dict[str, Any], item: str) -> tuple[str, ...]:
    """Write one `dotted.key=value` into `raw`; returns the key's parts."""
    dotted, equals, value = item.partition("=")
    parts = tuple(part.strip() for part in dotted.split("."))
    if not equals or not all(parts):
        raise ConfigError(
            where="--set", key=dotted[:80] or "(empty)", problem="is not of the form dotted.key=value",
            remedy="Write for example: --set log.level=debug",
        )  # fmt: skip
    place: Any = raw
    for depth, part in enumerate(parts[:-1]):
        place = _step_into(place, part, ".".join(parts[: depth + 1]))
    if isinstance(place, list):
        place[_index(place, parts[-1], dotted)] = _value(value)
    else:
        place[parts[-1]] = _value(value)
    return parts


def _step_into(place: Any, part: str, so_far: str) -> Any:
    below = place[_index(place, part, so_far)] if isinstance(place, list) else place.setdefault(part, {})
    if not isinstance(below, (dict, list)):
        raise ConfigError(
            where="--set", key=so_far, problem="is a value, not a table", remedy="Leave out what stands behind it."
        )
    return below


def _index(place: Sequence[Any], part: str, so_far: str) -> int:
    if part.isdecimal() and int(part) < len(place):
        return int(part)
    problem = f"names no entry of a list of {len(place)}"
    raise ConfigError(where="--set", key=so_far, problem=problem, remedy="Count the entries from 0.")


def _value(text: str) -> Any:
    """A TOML value, or the text itself; dates stay text, as no key holds one."""
    try:
        parsed: Mapping[str, Any] = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    return value if parsed.keys() == {"value"} and isinstance(value, (str, int, float, list, dict)) else text
