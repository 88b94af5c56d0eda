"""The one error root. Every failure a person can see is a class below it, in either package.

A class carries a stable dotted `code`, an HTTP status, a CLI exit code, a sentence and a hint. Values for the
sentence are given by keyword and kept in `args` as one mapping, so that an error survives `cls(*args)` (the
way oslo.privsep rebuilds it), JSON and pickling. Whether trying again makes sense is decided where the error
is raised, by deriving from `Temporary` or `Permanent`; only the engines retry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

_registry: dict[str, type[BrickyardError]] = {}


class BrickyardError(Exception):
    """Root of all errors. `str(error)` is the filled sentence, without the hint."""

    code: str = "internal"
    status: int = 500
    exit_code: ClassVar[int] = 1
    sentence: ClassVar[str] = "Something failed that should not have: {reason}."
    hint: ClassVar[str] = "This is a defect; please report it with the request id and the support bundle."

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            known = _registry.get(cls.code)
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise TypeError(f"error code {cls.code!r} is used by {known.__qualname__}")
            _registry[cls.code] = cls

    def __init__(self, context: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        self.context: dict[str, Any] = {**(context or {}), **values}
        super().__init__(self.context)

    def __str__(self) -> str:
        return self.sentence.format_map(_Lenient(self.context))

    @property
    def remedy(self) -> str:
        """What to do next, filled like the sentence; may be empty."""
        return self.hint.format_map(_Lenient(self.context))

    def translated(self, translate: Callable[[str], str]) -> tuple[str, str]:
        """Sentence and hint in another language; in ours where its catalogue can not be filled in."""
        try:
            values = _Lenient(self.context)
            return translate(self.sentence).format_map(values), (self.hint and translate(self.hint)).format_map(values)
        except (ValueError, IndexError, AttributeError, TypeError):
            return str(self), self.remedy

    def to_body(self) -> dict[str, Any]:
        """The form that travels: code, status, message, hint, context, retry_after (seconds or None)."""
        return {
            "code": self.code,
            "status": self.status,
            "message": str(self),
            "hint": self.remedy,
            "context": {key: _plain(value) for key, value in self.context.items()},
            "retry_after": getattr(self, "retry_after", None),
        }


class Temporary(BrickyardError):
    """Trying the same again later may succeed; `retry_after` is in seconds."""

    code = "temporary"
    status = 503
    retry_after: float = 1.0
    sentence = "Not possible just now: {reason}."
    hint = "It is tried again by itself."

    def __init__(
        self, context: Mapping[str, Any] | None = None, /, *, retry_after: float | None = None, **values: Any
    ) -> None:
        super().__init__(context, **values)
        if retry_after is not None:
            self.retry_after = retry_after


class Permanent(BrickyardError):
    """Trying the same again can not succeed."""

    code = "permanent"
    status = 400
    sentence = "Not possible: {reason}."
    hint = ""


class Invalid(Permanent):
    """A value from outside is not acceptable."""

    code = "invalid"
    status = 400
    exit_code = 2
    sentence = "{reason}"


class NotFound(Permanent):
    """The named thing does not exist, or not for this caller."""

    code = "not-found"
    status = 404
    exit_code = 4
    sentence = "{noun} {id} could not be found."


class Conflict(Permanent):
    """The thing is in a state that does not allow this."""

    code = "conflict"
    status = 409
    exit_code = 5
    sentence = "{reason}"


class Remote(BrickyardError):
    """An error that another process reported and whose class is not loaded here."""

    code = "remote"

    def __init__(self, context: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        super().__init__(context, **values)
        body: Mapping[str, Any] = self.context.get("body", {})
        self.code = str(body.get("code", "remote"))
        self.status = int(body.get("status", 500))
        self.retry_after: float | None = body.get("retry_after")

    def __str__(self) -> str:
        return str(self.context.get("body", {}).get("message", "The other side failed."))

    def translated(self, translate: Callable[[str], str]) -> tuple[str, str]:
        """What the other side said, as it is."""
        return str(self), self.remedy

    @property
    def remedy(self) -> str:
        return str(self.context.get("body", {}).get("hint", ""))


def from_body(body: Mapping[str, Any]) -> BrickyardError:
    """Rebuild an error from `to_body()`: its own class where that is loaded, else `Remote`."""
    cls = _registry.get(str(body.get("code", "")))
    if cls is None or cls is Remote:
        return Remote(body=dict(body))
    error = cls(dict(body.get("context") or {}))
    if isinstance(error, Temporary) and body.get("retry_after") is not None:
        error.retry_after = float(body["retry_after"])
    return error


def known_errors() -> dict[str, type[BrickyardError]]:
    """Every error class that is loaded, by code (for the generated reference)."""
    return dict(_registry)


class _Lenient(dict[str, Any]):
    """A missing value must not hide the error it was meant to describe."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    return str(value)
