"""A site that is read-only for a while: calls that would change something are refused, everything else goes on."""

from __future__ import annotations

import time

from agent.base.errors import Temporary
from coordinator.state import site
from coordinator.state.database import Database

FRESH_S = 1.0
"""For so long a coordinator may not know yet that it was said, or taken back."""
_ALWAYS = frozenset(
    {"brickyard:hosts:update", "brickyard:hosts:evict", "brickyard:site:update", "brickyard:operations:cancel",
     "brickyard:issues:update", "volume_extension:services:update"}
)  # fmt: skip
"""Rules of calls by which operators work on the site itself."""


class SiteReadOnly(Temporary):
    code = "site.read-only"
    status = 503
    retry_after = 60.0
    sentence = "This site is read-only since {since} UTC: {reason}"
    hint = "Look at things, or ask again later. An administrator ends it with: brickyard site read-write."


class ReadOnly:
    """What the site says of it, read at most once in `FRESH_S` seconds, by calls that would change something."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._next = float("-inf")
        self._told: tuple[str, str] | None = None

    async def check(self, method: str, path: str, policy: str | None) -> None:
        """Raise SiteReadOnly for a call that has to wait."""
        if method in {"GET", "HEAD"} or policy in _ALWAYS or path.startswith("/identity/v3/auth/"):
            return
        now = time.monotonic()
        if now >= self._next:
            self._next = now + FRESH_S
            self._told = await self._db.read(site.read_only)
        if self._told is not None:
            raise SiteReadOnly(since=self._told[0], reason=self._told[1])
