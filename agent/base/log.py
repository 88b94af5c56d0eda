"""Structured logging: structlog over the standard library, so that lines of other libraries get the same form.

JSON under systemd's journal, readable lines else. Each line carries the ids that `bound()` put in force
(request_id, operation, job, resource). Nothing is rendered before the redaction of `agent.base.redact`.
A call below the level costs one method that does nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO, cast
from weakref import WeakSet

from agent.base.redact import redacted

# structlog loads rich, if it is there, for a decoration that is never used here; that costs each process 40 ms.
_absent = {name: None for name in ("rich",) if name not in sys.modules}
sys.modules.update(cast(Any, _absent))
import structlog  # noqa: E402
from structlog.typing import FilteringBoundLogger  # noqa: E402

for _name in _absent:
    del sys.modules[_name]

Level = Literal["debug", "info", "warning", "error"]
Logger = FilteringBoundLogger

_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
# Below these levels they write arguments, statements or every request, secrets among them.
_HELD = {
    "oslo_privsep.daemon": logging.INFO, "oslo_concurrency": logging.INFO, "urllib3": logging.INFO,
    "keystoneauth": logging.INFO, "sqlalchemy": logging.WARNING,
}  # fmt: skip
_OURS = ("agent.", "coordinator.")
STEPS = "coordinator.steps"
"""The logger of what operations do step by step."""
_proxies: WeakSet[Any] = WeakSet()


def get_logger(name: str) -> Logger:
    """The logger of a module (`get_logger(__name__)`); may be made before `configure` is called."""
    logger = structlog.stdlib.get_logger(name)
    _proxies.add(logger)
    return cast(Logger, logger)


@contextmanager
def bound(**ids: str | None) -> Iterator[None]:
    """Put ids on every line written inside, in this task and those it starts; None leaves an id as it is."""
    given = {key: value for key, value in ids.items() if value is not None}
    before = structlog.contextvars.bind_contextvars(**given)
    try:
        yield
    finally:
        structlog.contextvars.reset_contextvars(**before)


def current_ids() -> dict[str, str]:
    """The ids in force here, to be sent along to the other side."""
    return {str(key): str(value) for key, value in structlog.contextvars.get_contextvars().items()}


def configure(
    level: Level = "info", json: bool | None = None, stream: TextIO | None = None, steps_file: Path | None = None
) -> None:
    """Send all log lines to `stream` (default: stderr). `json` None: JSON exactly when the journal reads it.

    Those of steps go to `steps_file` alone, if one is named and can be written. May be called again; loggers that were
    made before follow.
    """
    out = stream if stream is not None else sys.stderr
    journal = _is_journal(out)
    as_json = journal if json is None else json
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(as_json, journal, _is_terminal(out)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name, least in _HELD.items():
        logging.getLogger(name).setLevel(max(number, least))
    _filter_from(min(number, logging.INFO) if _apart(steps_file, as_json) else number)


def has_steps_file() -> bool:
    """Whether the lines of steps go to a file of their own."""
    return bool(logging.getLogger(STEPS).handlers)


def steps_are_told() -> bool:
    """Whether anybody reads the lines of steps, there or here."""
    return logging.getLogger(STEPS).isEnabledFor(logging.DEBUG) or has_steps_file()


def _apart(steps_file: Path | None, as_json: bool) -> bool:
    steps = logging.getLogger(STEPS)
    for old in steps.handlers[:]:
        steps.removeHandler(old)
        old.close()
    steps.propagate = True
    steps.setLevel(logging.NOTSET)
    if steps_file is None:
        return False
    from logging.handlers import WatchedFileHandler

    try:
        handler = WatchedFileHandler(steps_file)
    except OSError as error:
        reason = error.strerror or str(error)
        logging.getLogger(__name__).warning("%s can not be written, steps stay in this log: %s", steps_file, reason)
        return False
    handler.setFormatter(_formatter(as_json, False, False))
    steps.addHandler(handler)
    steps.setLevel(logging.INFO)
    steps.propagate = False
    return True


def _filter_from(number: int) -> None:
    """Let pass what a logger may want to write; loggers that were made before follow."""
    _set_up([structlog.stdlib.ProcessorFormatter.wrap_for_formatter], number)
    for proxy in _proxies:
        proxy.__dict__.pop("bind", None)


def set_level(prefix: str, level: Level) -> None:
    """Write from `level` on what the loggers below `prefix` say (all, for an empty one), until the process ends."""
    number = logging.getLevelNamesMapping()[level.upper()]
    if prefix in {"", "."}:
        logging.getLogger().setLevel(number)
        for name, logger in _loggers().items():
            if name.startswith(_OURS):
                logger.setLevel(logging.NOTSET)
    else:
        logging.getLogger(prefix.rstrip(".")).setLevel(number)
    for name, least in _HELD.items():
        for each in (name, *(other for other in _loggers() if other.startswith(f"{name}."))):
            held = logging.getLogger(each)
            held.setLevel(max(least, held.getEffectiveLevel()))
    _filter_from(min(logger.getEffectiveLevel() for logger in _loggers().values()))


def levels(prefix: str) -> dict[str, str]:
    """The level in force of every logger whose name begins with `prefix`."""
    known = {name: logger for name, logger in _loggers().items() if name.startswith(prefix)}
    return {name: logging.getLevelName(known[name].getEffectiveLevel()) for name in sorted(known)}


def _loggers() -> dict[str, logging.Logger]:
    names = {name for name in logging.root.manager.loggerDict if isinstance(name, str)}
    names |= {str(proxy._logger_factory_args[0]) for proxy in _proxies if proxy._logger_factory_args}
    return {name: logging.getLogger(name) for name in names}


def _set_up(last: list[Any], level: int) -> None:
    structlog.configure(
        processors=[*_shared(), *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _shared() -> list[Any]:
    """The processors before rendering; `_redact` sees the whole line before anything is turned into text."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact,
    ]


def _redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: value if key in _OWN else redacted(key, value) for key, value in event.items()}


_OWN = frozenset({"timestamp", "level", "logger", "_record", "_from_structlog"})


def _formatter(as_json: bool, journal: bool, colors: bool) -> logging.Formatter:
    render: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        render.append(structlog.processors.EventRenamer("message"))
        render.append(structlog.processors.JSONRenderer(default=str))
    else:
        plain = structlog.dev.plain_traceback
        render.append(structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, pad_event_to=0))
    if journal:
        render.append(_with_priority)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *_shared()],
        processors=[_remember_level, *render],
    )


def _remember_level(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    global _last_level
    _last_level = str(event.get("level", "info"))
    return event


def _with_priority(logger: Any, method: str, line: str) -> str:
    """The journal reads the priority from `<N>` before a line and takes it off."""
    return f"<{_PRIORITY.get(_last_level, 6)}>{line}"


_last_level = "info"


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ


def _is_journal(stream: TextIO) -> bool:
    """Whether the stream is the socket that systemd named in JOURNAL_STREAM (device:inode)."""
    named = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


_set_up([structlog.processors.KeyValueRenderer(key_order=["event"])], logging.WARNING)
