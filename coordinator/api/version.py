"""Microversions: what a request asks for, and what is answered.

`OpenStack-API-Version: volume 3.N`, possibly several names in one line or several lines; `brickyard 1.N` beside it
for what goes beyond Block Storage. A header that names neither means the lowest version of each. Clients that send the
type of the catalog's entry as the name (`volumev3 3.N`, `block-storage 3.N`) mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from coordinator.api.errors import VersionMalformed, VersionUnsupported

HEADER = "OpenStack-API-Version"
MAXIMUM = 71
BRICKYARD_MAXIMUM = 1
UPDATED = "2023-08-31T00:00:00Z"

_NUMBER = re.compile(r"([1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
_VOLUME, _BRICKYARD = (3, MAXIMUM), (1, BRICKYARD_MAXIMUM)
_MAJOR = {"volume": _VOLUME, "volumev3": _VOLUME, "block-storage": _VOLUME, "brickyard": _BRICKYARD}


@dataclass(frozen=True, slots=True)
class Versions:
    """The minors in force of `volume 3.N` and `brickyard 1.N`, and the header that says so."""

    volume: int = 0
    brickyard: int = 0
    header: str = "volume 3.0"


BASE = Versions()


def negotiate(lines: Sequence[str]) -> Versions:
    """The versions for the values of all header lines; raises VersionMalformed (400), VersionUnsupported (406)."""
    return _negotiated(tuple(lines)) if lines else BASE


@lru_cache(maxsize=256)
def _negotiated(lines: tuple[str, ...]) -> Versions:
    volume = brickyard = 0
    named_ours = False
    for item in (part.strip() for line in lines for part in line.split(",")):
        name, _, number = item.partition(" ")
        name, number = name.lower(), number.strip()
        if name not in _MAJOR:
            continue
        major, last = _MAJOR[name]
        minor = _minor(number, major, last)
        if name == "brickyard":
            brickyard, named_ours = minor, True
        else:
            volume = minor
    header = f"volume 3.{volume}" + (f", brickyard 1.{brickyard}" if named_ours else "")
    return Versions(volume, brickyard, header)


def _minor(number: str, major: int, last: int) -> int:
    if number == "latest":
        return last
    found = _NUMBER.fullmatch(number)
    if found is None:
        raise VersionMalformed(version=number[:64])
    if int(found[1]) != major or int(found[2]) > last:
        raise VersionUnsupported(version=number, minimum=f"{major}.0", maximum=f"{major}.{last}")
    return int(found[2])
