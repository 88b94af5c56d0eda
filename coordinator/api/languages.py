"""Faults in the language that the caller asks for, where the site has a catalogue of it; logs stay as they are."""

from __future__ import annotations

import gettext
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from agent.base.log import get_logger

_log = get_logger(__name__)
_DOMAIN = "brickyard"
_RANGE = re.compile(r"([A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")
_MOST = 16
Translate = Callable[[str], str]


class Languages:
    """`folder` holds `LANGUAGE/LC_MESSAGES/brickyard.mo`, as gettext has it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._catalogue = lru_cache(maxsize=64)(self._read)

    def best(self, header: str | None) -> Translate | None:
        """The first language wished for that there is; None for English, and for a header that says nothing."""
        for tag in _wished(header or ""):
            if tag == "en" or tag.startswith("en-"):
                return None
            found = self._catalogue(tag)
            if found is not None:
                return found
        return None

    def _read(self, tag: str) -> Translate | None:
        language, _, region = tag.partition("-")
        names = [f"{language}_{region.upper()}", language] if region else [language]
        try:
            return gettext.translation(_DOMAIN, self._folder, names).gettext
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            _log.warning("a catalogue of messages can not be read", language=tag, reason=str(error))
            return None


@lru_cache(maxsize=256)
def _wished(header: str) -> tuple[str, ...]:
    found: list[tuple[float, int, str]] = []
    for part in header.split(",")[:_MOST]:
        match = _RANGE.fullmatch(part.strip())
        if match is not None and (quality := float(match[2] or 1)) > 0:
            found.append((-quality, len(found), match[1].lower()))
    return tuple(tag for _, _, tag in sorted(found))
