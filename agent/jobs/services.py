"""What handlers work with: made once by the server and given to every job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Services:
    """`host` is this host's name."""

    host: str
