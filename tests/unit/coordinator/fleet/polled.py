"""A host that answers polls as it is told, and who polls it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.base.errors import Permanent
from agent.server.errors import NoSuchRoute
from agent.wire.client import AgentClient
from agent.wire.errors import Undelivered
from agent.wire.results import HostFacts, Pool, Report
from coordinator.enrolment.authority import FileCaStore
from coordinator.enrolment.ca import Authority
from coordinator.enrolment.own import own_identity
from coordinator.enrolment.renewal import Renewal
from coordinator.enrolment.service import Enrolment
from coordinator.fleet.directory import Directory, Known
from coordinator.fleet.poller import Poller
from coordinator.fleet.reconciler import Reconciler
from coordinator.state import enrolment, issues
from coordinator.state import fleet as state
from coordinator.state.database import Database
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.tables.columns import utcnow


class BackEndBroken(Permanent):
    code = "test.broken"
    sentence = "The back end is broken."


class HostWire:
    """What a host answers to a poll; `old` is one of the release before, which has no report."""

    def __init__(self) -> None:
        self.old = False
        self.free = 1 << 40
        self.held = "nothing"
        self.told: list[tuple[bool, bool]] = []
        self.compared = 0
        self.offset = 0.0
        self.asked = 0
        self.away = False
        self.broken = False
        self.version = "v"
        self.given: list[list[str]] = []
        self.meanwhile: Callable[[], None] | None = None
        self.issues: list[dict[str, str]] = []
        self.more: list[Any] = []
        """Pools beside its own, as they go over the wire."""

    async def call(self, method: str, path: str, *, query: Any = None, body: Any = None, **_: Any) -> Any:
        if self.away:
            raise Undelivered(peer="host:h", address="test", reason="no route")
        clock = time.time() + self.offset
        facts = HostFacts(host="h", boot_id="b", arch="x", kernel="k", version=self.version, started_at="", clock=clock)
        pool = Pool(backend="files", name="files", driver="file", total_bytes=1 << 40, free_bytes=self.free,
                    allocated_bytes=0)  # fmt: skip
        if path == "/v1/report":
            if self.old:
                raise NoSuchRoute(noun="call", id=path, method=method, path=path)
            self.asked += 1
            known = str((query or {}).get("have", ".")).split(".")
            report = Report(
                clock=clock, have=f"1.{self.free}", host=facts if known[0] != "1" else None,
                pools=(pool,) if known[1] != str(self.free) else None, held="" if self.broken else self.held,
            )  # fmt: skip
            self.told.append((report.host is not None, report.pools is not None))
            told = report.model_dump(mode="json")
            return told | ({"pools": [*told["pools"], *self.more]} if report.pools is not None else {})
        if path == "/v1/host":
            self.asked += 1
            return facts.model_dump(mode="json")
        if path == "/v1/pools":
            return {"pools": [pool.model_dump(mode="json"), *self.more]}
        if path == "/v1/inventory":
            self.compared += 1
            if self.broken:
                raise BackEndBroken
            if self.meanwhile is not None:
                await asyncio.to_thread(self.meanwhile)
            return {"inventory": []}
        if path == "/v1/identity/denied":
            self.given.append(body["serials"])
        if path == "/v1/issues":
            return {"issues": self.issues}
        listed = path.removeprefix("/v1/")
        return {listed: []} if listed in {"attachments", "exports"} else {"jobs": []}

    async def rest(self) -> None:
        return None

    async def close(self) -> None:
        return None


class Fleet:
    def __init__(self, db: Database, folder: Path) -> None:
        self.db, self.wire = db, HostWire()
        authority = Authority.open(FileCaStore(folder / "ca"))
        tls = own_identity(folder / "identity", authority)
        self.directory = Directory(tls)
        self.poller = Poller(db, self.directory, Reconciler(db), Renewal(Enrolment(authority, db), tls), 0.05)

    async def enrol(self, port: int = 1) -> None:
        host = EnrolledHost("h", "127.0.0.1", port, 2, "0" * 64, utcnow())
        await self.db.write(lambda conn: enrolment.put_host(conn, host))
        await self.db.write(state.ensure_hosts)

    async def watch(self) -> None:
        """Poll the host on this wire."""
        await self.enrol()
        await self.poller.enrolled()
        known = self.directory.get("h")
        assert known is not None
        known.client = AgentClient(self.wire, "h")

    async def known(self) -> Known:
        """The host, polled by nobody but the test."""
        await self.enrol()
        await self.directory.sync(await self.db.read(enrolment.hosts))
        known = self.directory.get("h")
        assert known is not None
        known.client = AgentClient(self.wire, "h")
        return known

    async def pool(self) -> Any:
        (row,) = await self.db.read(lambda conn: state.pools_of(conn, "h"))
        return row

    async def issues(self) -> set[str]:
        return {row.code for row in await self.db.read(issues.listing)}

    async def until(self, true: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.01)
