"""What the agent tells about its host: facts, pools, inventory, attachments, exports, issues, health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.backends.abilities import Adopting
from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.base.metrics import registry
from agent.connectors import registry as connectors
from agent.host import facts as hostfacts
from agent.jobs import desired, exports, records, remote
from agent.jobs.offering import shown
from agent.server.identity import keys
from agent.server.troubles import config_issues, of_backend, of_device
from agent.wire.results import ForeignItem, HostAttachment, HostExport, HostFacts, HostIssue, InventoryVolume, Pool

if TYPE_CHECKING:
    from agent.backends.base import Backend, PoolState
    from agent.jobs.healing import Healing
    from agent.jobs.restoring import Restoring
    from agent.jobs.runner import Runner
    from agent.jobs.services import Services
    from agent.jobs.watching import Watching

log = get_logger(__name__)
_FACTS_S = 10.0
_POOLS_S = 1.0
_SECRET_PATIENCE_S = 60.0
_live = registry.gauge("brickyard_agent_jobs_live", "Jobs that were accepted and have not ended")
_oldest = registry.gauge("brickyard_agent_jobs_oldest_seconds", "Age of the oldest job that has not ended")
_days = registry.gauge("brickyard_agent_certificate_days", "Days until the certificate of this host ends")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class Views:
    """Answers of the read calls; costly ones are kept for a moment."""

    services: Services
    runner: Runner
    version: str
    refused: Callable[[], str] = lambda: ""
    keeps_images: bool = False
    certificate: Path | None = None
    restoring: Restoring | None = None
    healing: Healing | None = None
    watching: Watching | None = None
    started_at: str = field(default_factory=_now)
    _facts: tuple[float, hostfacts.Facts] | None = None
    _pools: tuple[float, list[Pool]] | None = None
    _initiator: str | None = None

    async def host(self) -> HostFacts:
        if self._facts is None or time.monotonic() - self._facts[0] > _FACTS_S:
            self._facts = (time.monotonic(), await asyncio.to_thread(hostfacts.host_facts))
        known = self._facts[1]
        port = self.services.data_port
        return HostFacts(
            host=self.services.host,
            boot_id=known.boot_id,
            arch=known.arch,
            kernel=known.kernel,
            version=self.version,
            started_at=self.started_at,
            clock=time.time(),
            initiator_iqn=known.initiator_iqn or await self._initiator_name(known),
            nqn=known.nqn,
            wwpns=known.wwpns,
            addresses=known.addresses,
            links=known.links,
            data_port=port.port if port is not None else None,
            keeps_images=self.keeps_images,
            capabilities=(*known.capabilities, *await asyncio.to_thread(connectors.abilities)),
            job_kinds=self.runner.kinds,
            backends=tuple(sorted({name.partition("#")[0] for name in (*self.services.backends, *self.services.away)})),
        )

    async def _initiator_name(self, known: hostfacts.Facts) -> str | None:
        """The file is root's alone on most systems: the privileged side reads it, once."""
        if self._initiator is None and "iscsi" in known.capabilities:
            from agent.privsep import iscsi
            from agent.privsep.client import call

            try:
                self._initiator = await call(iscsi.initiator_name)
            except BrickyardError:
                return None
        return self._initiator or None

    async def pools(self) -> list[Pool]:
        if self._pools is None or time.monotonic() - self._pools[0] > _POOLS_S:
            backends = dict(self.services.backends)
            states = await asyncio.gather(*map(_pools_of, backends.values()))
            found = [
                Pool(
                    **asdict(state)
                    | {"protocols": self._protocols(state.protocols)}
                    | {"backend": name.partition("#")[0], "name": name.partition("#")[2] or state.name}
                )
                for name, told in zip(backends, states, strict=True)
                for state in told
            ]
            self._pools = (time.monotonic(), found)
        return self._pools[1]

    def _protocols(self, own: tuple[str, ...]) -> tuple[str, ...]:
        """How a pool's volumes can be reached: what its back end says; those of this host by all its targets, too."""
        if "local" not in own:
            return own
        return tuple(dict.fromkeys((*own, *self.services.targets)))

    async def inventory(self) -> tuple[list[InventoryVolume], dict[str, str]]:
        """All that is held; and by name the back ends that can not say, with the reason."""
        away = {name: trouble.message for name, trouble in self.services.away.items()}
        found: list[InventoryVolume] = []
        for name, backend in self.services.backends.items():
            try:
                held = await backend.inventory()
            except BrickyardError as error:
                log.warning("a back end does not tell what it holds", backend=name, code=error.code, reason=str(error))
                away[name] = str(error)
                continue
            found += [
                InventoryVolume(
                    backend=name,
                    kind=one.kind,
                    id=one.id,
                    device_bytes=one.device_bytes,
                    allocated_bytes=one.allocated_bytes,
                )
                for one in held
            ]
        if self.services.images is not None:
            found += [
                InventoryVolume(
                    backend="images",
                    kind=stored.kind,
                    id=stored.id,
                    device_bytes=stored.size,
                    allocated_bytes=stored.allocated,
                )
                for stored in await self.services.images.inventory()
            ]
        return found, away

    async def foreign(self) -> list[ForeignItem]:
        """What the back ends could adopt."""
        return [
            ForeignItem(backend=name, **asdict(item))
            for name, backend in self.services.backends.items()
            if isinstance(backend, Adopting)
            for item in await backend.foreign()
        ]

    async def attachments(self) -> list[HostAttachment]:
        rows = await self.services.journal.read(desired.all_rows)
        boot = self.services.boot_id
        states = await asyncio.to_thread(lambda: [desired.state_of(row, boot) for row in rows])
        return [
            HostAttachment(
                attachment_id=row.attachment_id,
                volume_id=row.volume_id,
                backend=row.backend,
                generation=row.generation,
                device=row.device,
                raw_device=row.raw_device,
                raw=row.raw,
                mode=row.mode,
                boot_id=row.boot_id,
                state=state,
                protocol=row.connection.protocol if row.connection is not None else "local",
                paths=paths,
            )
            for row, state, paths in zip(rows, states, await asyncio.to_thread(_paths, rows), strict=True)
        ]

    async def exports(self) -> list[HostExport]:
        """What this host offers to others by iSCSI or NVMe; transfers are not exports."""
        rows = await self.services.journal.read(exports.all_rows)
        failures = self.restoring.failures if self.restoring is not None else {}
        return await asyncio.to_thread(shown, self.services, rows, failures)

    async def issues(self) -> list[HostIssue]:
        """What a person should know; each with what to do about it."""
        return [
            *_attachment_issues(await self.attachments()),
            *_export_issues(await self.exports()),
            *self.troubles(),
            *await self._job_issues(),
            *[issue for backend in self.services.backends.values() for issue in await _backend_issues(backend)],
            *[of_backend(name, trouble) for name, trouble in self.services.away.items()],
        ]

    def troubles(self) -> list[HostIssue]:
        """Those of them that are known without a look."""
        return [*self._mirror_issues(), *self._device_issues(), *config_issues(self.refused())]

    async def health(self) -> dict[str, Any]:
        """Answers only when the journal does."""
        await self.services.journal.read(lambda db: db.execute("SELECT 1").fetchone())
        return {"status": "ok", "host": self.services.host, "version": self.version, "jobs": self.runner.live}

    def refresh_metrics(self) -> None:
        """Read what is not counted as it happens; blocking (one small file)."""
        _live.set(self.runner.live)
        _oldest.set(max(0.0, time.time() - self.runner.oldest))
        if self.certificate is not None:
            _days.set(_days_left(self.certificate))

    def _device_issues(self) -> list[HostIssue]:
        return [of_device(one) for one in (self.watching.troubles() if self.watching is not None else ())]

    async def _job_issues(self) -> list[HostIssue]:
        waiting = await self.services.journal.read(records.unfinished)
        return [
            HostIssue(
                code="job.needs-secret",
                resource=record.key,
                message=f"Job {record.key} ({record.kind}) waits for its secrets since the agent was restarted.",
                remedy="The coordinator posts them by itself; look why it does not, or cancel the operation.",
                since=datetime.fromtimestamp(record.updated_at, UTC).isoformat(timespec="seconds"),
            )
            for record in waiting
            if record.state == "needs-secret" and time.time() - record.updated_at > _SECRET_PATIENCE_S
        ]

    def _mirror_issues(self) -> list[HostIssue]:
        return [
            HostIssue(
                code="attachment.replica",
                resource=one.attachment_id,
                message=f"The mirror of volume {one.volume_id} is not whole: {'; '.join(one.reasons)}.",
                remedy="A replica that answers again is taken back by itself; for one that is lost, name another one.",
                since=datetime.fromtimestamp(one.since, UTC).isoformat(timespec="seconds"),
            )
            for one in (self.healing.troubles.values() if self.healing is not None else ())
        ]


def _paths(rows: list[desired.Row]) -> list[tuple[str, ...]]:
    return [remote.paths(row.connection) if row.connection is not None else () for row in rows]


def _export_issues(found: list[HostExport]) -> list[HostIssue]:
    return [
        HostIssue(
            code=f"export.{row.state}",
            resource=row.attachment_id,
            message=f"Volume {row.volume_id} is not offered to {row.initiator} as it should be: {row.reason}.",
            remedy="It is tried again by itself. Run `brickyard-agent doctor` on this host if it stays so.",
            since=_now(),
        )
        for row in found
        if row.state != "exported"
    ]


async def _pools_of(backend: Backend) -> tuple[PoolState, ...]:
    """None of a back end that is out of order: nothing is placed there, and its issue says why."""
    try:
        return await backend.pools()
    except BrickyardError as error:
        log.warning("a back end does not tell its space", backend=backend.name, code=error.code, reason=str(error))
        return ()


async def _backend_issues(backend: Backend) -> list[HostIssue]:
    return [of_backend(backend.name, trouble) for trouble in await backend.issues()]


def _days_left(certificate: Path) -> float:
    return (_expiry(str(certificate), certificate.stat().st_mtime_ns) - time.time()) / 86400


@lru_cache(maxsize=1)
def _expiry(certificate: str, _version: int) -> float:
    """Unix time; read once for each certificate."""
    return float(keys.call("expiry", certificate))


def _attachment_issues(found: list[HostAttachment]) -> list[HostIssue]:
    told = {
        "missing": ("is wanted here, but its device is not there", "Attach it again, or delete the attachment."),
        "needs-secret": (
            "is wanted here, but its device is gone and its secret is needed to open it again",
            "Attach it again, or delete the attachment.",
        ),
        "stale": ("was to be removed, but the removal has not ended", "Detach it again; it goes on where it stopped."),
    }
    return [
        HostIssue(
            code=f"attachment.{row.state}",
            resource=row.attachment_id,
            message=f"Attachment {row.attachment_id} of volume {row.volume_id} {told[row.state][0]}.",
            remedy=told[row.state][1],
            since=_now(),
        )
        for row in found
        if row.state in told
    ]
