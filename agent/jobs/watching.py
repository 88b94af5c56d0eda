"""Watching devices of other hosts and arrays while they are used: what they say of themselves, and their paths.

A device that is not what was attached any more becomes an issue at once; so does a path that stays away for a while.
What is missing is tried again, ever more slowly, also after a restart: the journal says what is attached, the kernel
what there is of it. Nothing is taken away from here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.connectors.base import Look, Watched
from agent.connectors.registry import connector
from agent.host.kernel import current
from agent.host.udev import LOST
from agent.jobs import desired

if TYPE_CHECKING:
    from agent.host.udev import Event, Events
    from agent.jobs.services import Services
    from agent.wire.jobs import Connection

log = get_logger(__name__)
PERIOD_S = 30.0
AFRESH_S = 300.0
PATIENCE_S = 15.0
_QUIET_S, _SOONEST_S, _SLOWEST_S = 1.0, 5.0, 60.0
_SUBSYSTEMS = ("block", "scsi", "nvme")
What = Literal["changed", "path"]
_WHAT: tuple[What, What] = ("changed", "path")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with the device of one attachment, since when (Unix time)."""

    attachment_id: str
    volume_id: str
    what: What
    reasons: tuple[str, ...]
    since: float


@dataclass(slots=True)
class _Trying:
    """When the paths of one attachment are tried again (monotonic), and how long after that."""

    due: float
    delay: float = _SOONEST_S


class Watching:
    """`start()` begins it beside the jobs. Connectors keep it apart from attaching and detaching the same target."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._troubles: dict[tuple[str, What], Trouble] = {}
        self._trying: dict[str, _Trying] = {}
        self._sizes: dict[str, int] = {}
        self._names: frozenset[str] = frozenset()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def troubles(self) -> tuple[Trouble, ...]:
        """What is to be told: all that has changed, and paths that are away for longer than a moment."""
        settled = time.time() - PATIENCE_S
        return tuple(one for one in self._troubles.values() if one.what == "changed" or one.since <= settled)

    async def round(self, *, afresh: bool = False) -> None:
        """Look at every device once; with `afresh` each is asked who it is, else the kernel's memory is believed."""
        rows = await self._services.journal.read(desired.all_rows)
        used = [row for row in rows if row.wanted and row.device and row.boot_id == self._services.boot_id]
        parts = [(row, one, each) for row in used if row.connection for one, each in _watched(row.connection)]
        looks = await asyncio.gather(*(self._looked_at(one, each, afresh) for _, one, each in parts))
        told: dict[tuple[str, What], list[str]] = {}
        mends = []
        for (row, one, each), look in zip(parts, looks, strict=True):
            changed, path = (told.setdefault((row.attachment_id, what), []) for what in _WHAT)
            if look is None:  # what was known of it stands
                changed += self._known(row, "changed")
                path += self._known(row, "path")
                continue
            changed += (*look.wrong, *self._shrunk(row, each, look))
            if each.target == row.identifiers["connection"]["target"]:  # replicas of a mirror are told by its healing
                path += (*look.down, *look.missing)
            mends.append(self._mend(f"{row.attachment_id} {each.target}", one, each, look))
        await asyncio.gather(*mends)
        volumes = {row.attachment_id: row.volume_id for row in used}
        self._names = frozenset(name for look in looks if look is not None for name in look.paths)
        self._trying = {key: value for key, value in self._trying.items() if key.partition(" ")[0] in volumes}
        self._sizes = {key: value for key, value in self._sizes.items() if key.partition(" ")[0] in volumes}
        self._troubles = {key: self._noted(key, volumes[key[0]], tuple(lines)) for key, lines in told.items() if lines}

    async def _run(self) -> None:
        while True:
            try:
                await self.round()
                if self._names:
                    await self._attentive()
            except Exception:
                # A full disk, say: it must not end the watching until the next restart.
                log.exception("devices are not looked at for now")
            await asyncio.sleep(PERIOD_S)

    async def _attentive(self) -> None:
        """As long as there is something to watch."""
        async with current().events(*_SUBSYSTEMS) as events:
            afresh, read = True, time.monotonic()
            while self._names:
                await self.round(afresh=afresh)
                afresh = await self._asleep(events) or time.monotonic() - read >= AFRESH_S
                read = time.monotonic() if afresh else read

    async def _asleep(self, events: Events) -> bool:
        """Until something happens to a device in use, something is due, or the period is over.

        Whether the devices have to be asked anew: the kernel says so where one answers that it has changed.
        """
        soonest = min((one.due for one in self._trying.values()), default=time.monotonic() + PERIOD_S)
        event = await events.wait(self._concerns, max(_QUIET_S, min(PERIOD_S, soonest - time.monotonic())))
        if event is None:
            return False
        found = [event, *await _quiet(events)]
        return any(one.subsystem == "scsi" and one.action == "change" for one in found)

    def _concerns(self, event: Event) -> bool:
        if event.subsystem == "scsi":
            return event.action == "change"
        return event is LOST or event.name in self._names

    async def _looked_at(self, one: Watched, connection: Connection, afresh: bool) -> Look | None:
        try:
            return await one.look(connection, afresh=afresh)
        except BrickyardError as error:
            log.warning("a device could not be looked at", target=connection.target, reason=str(error))
            return None

    def _known(self, row: desired.Row, what: What) -> tuple[str, ...]:
        known = self._troubles.get((row.attachment_id, what))
        return known.reasons if known is not None else ()

    def _shrunk(self, row: desired.Row, connection: Connection, look: Look) -> list[str]:
        """A volume never gets smaller while it is attached: who uses it would read and write past its end."""
        key = f"{row.attachment_id} {connection.target}"
        before = self._sizes.get(key, 0)
        self._sizes[key] = max(before, look.size)
        return [f"it had {before} bytes, and has {look.size}"] if 0 < look.size < before else []

    async def _mend(self, key: str, one: Watched, connection: Connection, look: Look) -> None:
        if not look.missing:
            self._trying.pop(key, None)
            return
        trying = self._trying.setdefault(key, _Trying(time.monotonic()))
        if time.monotonic() < trying.due:
            return
        trying.due, trying.delay = time.monotonic() + trying.delay, min(_SLOWEST_S, trying.delay * 2)
        try:
            if made := await one.mend(connection):
                log.info("paths are there that were not", target=connection.target, paths=made)
        except BrickyardError as error:
            log.warning("a path could not be made", target=connection.target, reason=str(error))

    def _noted(self, key: tuple[str, What], volume_id: str, reasons: tuple[str, ...]) -> Trouble:
        known = self._troubles.get(key)
        if known is None or known.reasons != reasons:
            log.warning("a device in use", volume=volume_id, what=key[1], reasons=list(reasons))
        return Trouble(key[0], volume_id, key[1], reasons, known.since if known is not None else time.time())


async def _quiet(events: Events) -> list[Event]:
    """What else comes within a moment: one cause makes many events."""
    found: list[Event] = []

    def heard(event: Event) -> bool:
        found.append(event)
        return False

    await events.wait(heard, _QUIET_S)
    return found


def _watched(connection: Connection) -> Iterator[tuple[Watched, Connection]]:
    """The parts of a connection that can be watched: itself, or the replicas of a mirror."""
    if connection.replicas:
        from agent.connectors.nvme import LEGS

        yield from ((LEGS, one) for one in connection.replicas)
        return
    found = connector(connection.protocol)
    if isinstance(found, Watched):
        yield found, connection
