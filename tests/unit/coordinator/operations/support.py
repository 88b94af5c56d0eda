"""A coordinator's engine beside real agents: real runner, journal and file back end, on a wire that can fail."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.backends.config import FileBackendConfig
from agent.backends.file import FileBackend
from agent.jobs.journal import Journal
from agent.jobs.registry import KINDS
from agent.jobs.runner import Runner, RunnerOptions
from agent.jobs.sealing import Sealer
from agent.jobs.services import Services
from agent.targets.base import Target
from agent.wire.client import AgentClient
from agent.wire.errors import OutcomeUnknown, Undelivered
from agent.wire.jobs import JobRequest
from agent.wire.results import HostFacts, Pool
from coordinator.compute.base import Compute
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester
from coordinator.operations.completions import Completions
from coordinator.operations.engine import Engine
from coordinator.operations.registry import workflows
from coordinator.scheduler.placement import Scheduler
from coordinator.state import enrolment, fleet
from coordinator.state.database import Database
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.tables.columns import utcnow
from tests.support import databases

REQUESTER = Requester(project_id="p1", user_id="u1", request_id="req-1", owner="c1")


@dataclass
class Wire:
    """The calls of `agent.wire.client`, straight into a runner. Faults are taken one by one from the lists."""

    runner: Runner
    lose_requests: int = 0
    lose_answers: int = 0
    posted: list[JobRequest] = field(default_factory=list)
    held: asyncio.Event | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    backend: FileBackend | None = None
    unknown: frozenset[str] = frozenset()
    """Arguments of jobs that an agent of an older release would not know of, and so pass over."""
    attached: list[dict[str, Any]] = field(default_factory=list)
    exported: list[dict[str, Any]] = field(default_factory=list)

    async def call(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None, timeout: float = 30.0
    ) -> Any:
        if self.lose_requests:
            self.lose_requests -= 1
            raise Undelivered(peer="host", address="test", reason="no route")
        if self.held is not None and method == "POST" and path == "/v1/jobs":
            self.arrived.set()
            await self.held.wait()
        answer = await self._answer(method, path, query or {}, body)
        if self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknown(peer="host", address="test", reason="cut")
        return answer

    async def _answer(self, method: str, path: str, query: Mapping[str, Any], body: Any) -> Any:
        if path == "/v1/host":
            return facts_of("host").model_dump(mode="json")
        if path == "/v1/jobs" and method == "GET":
            return {"jobs": [status.model_dump(mode="json") for status in await self.runner.listing()]}
        if path == "/v1/jobs":
            args = {name: value for name, value in body["args"].items() if name not in self.unknown}
            request = JobRequest.model_validate({**body, "args": args})
            self.posted.append(request)
            await self.runner.accept(request)
            return (await self.runner.wait_for_end(request.key, float(query.get("wait", 0)))).model_dump(mode="json")
        if path == "/v1/jobs/acknowledge":
            return {"acknowledged": await self.runner.acknowledge(body["keys"])}
        if path == "/v1/inventory":
            held = await self.backend.inventory() if self.backend is not None else []
            return {"inventory": [{"backend": "files", **dataclasses.asdict(item)} for item in held]}
        if path == "/v1/foreign":
            items = await self.backend.foreign() if self.backend is not None else []
            return {"foreign": [{"backend": "files", **dataclasses.asdict(item)} for item in items]}
        if path == "/v1/attachments":
            return {"attachments": self.attached}
        if path == "/v1/exports":
            return {"exports": self.exported}
        key = path.removeprefix("/v1/jobs/")
        if method == "DELETE":
            return (await self.runner.cancel(key, int(query["epoch"]))).model_dump(mode="json")
        status = await self.runner.wait_for_change(key, int(query.get("after", -1)), float(query.get("wait", 0)))
        return status.model_dump(mode="json")

    async def close(self) -> None:
        return None


@dataclass
class Hosts:
    """The `Agents` of the engine; all hosts count as reachable again at once."""

    wires: dict[str, Wire] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    lost_calls: list[str] = field(default_factory=list)

    def client(self, host_id: str) -> AgentClient | None:
        wire = self.wires.get(host_id)
        return AgentClient(wire, host_id) if wire else None

    def lost(self, host_id: str) -> None:
        self.lost_calls.append(host_id)

    def look(self, host_id: str) -> None:
        """It is never polled here."""

    async def reachable(self, host_id: str, timeout: float) -> bool:
        await asyncio.sleep(0)
        return host_id not in self.away


@dataclass
class Site:
    db: Database
    engine: Engine
    hosts: Hosts
    keys: KeyStore
    folders: dict[str, Path]
    completions: Completions


@asynccontextmanager
async def runner_for(
    folder: Path, name: str, targets: Mapping[str, Target] | None = None, cluster: str | None = None
) -> AsyncIterator[tuple[Runner, FileBackend]]:
    """A real agent's runner with a file back end called `files` below `folder`, and these targets.

    Those of a cluster have one folder together.
    """
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "journal.db")
    await journal.open()
    path = folder / "volumes" if cluster is None else folder.parent / "shared"
    backend = FileBackend("files", FileBackendConfig(driver="file", path=path, cluster_name=cluster))
    sealer = Sealer(folder / "host.key")
    services = Services(
        host=name, journal=journal, backends={"files": backend}, targets=targets or {}, sealer=sealer
    )  # fmt: skip
    runner = Runner(journal, KINDS, services, RunnerOptions(lock_dir=folder / "locks"))
    try:
        await runner.start()
        yield runner, backend
    finally:
        await runner.stop(0.2)
        await journal.close()
        backend.close()


def facts_of(name: str) -> HostFacts:
    return HostFacts(
        host=name, boot_id="b", arch="x", kernel="k", version="v", started_at="", clock=0.0, job_kinds=tuple(KINDS)
    )


async def report_pools(db: Database, name: str, backend: FileBackend, targets: Collection[str] = ()) -> None:
    facts = facts_of(name)
    state = dataclasses.asdict(await backend.pool())
    pool = Pool.model_validate({**state, "backend": "files", "protocols": (*state["protocols"], *targets)})
    await db.write(lambda conn: fleet.report(conn, name, facts, [pool]))


def new_engine(
    db: Database, hosts: Hosts, keys: KeyStore, owner: str = "c1", *, compute: Compute | None = None,
    completions: Completions | None = None, scheduler: Scheduler | None = None, **options: Any,
) -> Engine:  # fmt: skip
    known = workflows(keys, scheduler=scheduler, compute=compute, completions=completions)
    return Engine(db, hosts, known, owner=owner, exclusive=True, **{"away_deadline_s": 0.2, **options})


@asynccontextmanager
async def site(
    folder: Path, names: tuple[str, ...] = ("host-a",), targets: Mapping[str, Target] | None = None,
    cluster: str | None = None, **options: Any,
) -> AsyncIterator[Site]:  # fmt: skip
    """A database, an engine and agents, all real but for the wire between them."""
    async with AsyncExitStack() as stack:
        db = databases.fresh(folder / "state.db")
        stack.callback(db.close)
        keys = KeyStore(Kek(b"k" * 32))
        hosts = Hosts()
        folders: dict[str, Path] = {}
        for name in names:
            folders[name] = folder / name
            runner, backend = await stack.enter_async_context(runner_for(folder / name, name, targets, cluster))
            hosts.wires[name] = Wire(runner, backend=backend)
            host = EnrolledHost(name, "127.0.0.1", 1, 2, "0" * 64, utcnow())
            db.write_now(lambda conn, host=host: enrolment.put_host(conn, host))
            db.write_now(fleet.ensure_hosts)
            await report_pools(db, name, backend, targets or {})
        completions = Completions(db)
        engine = new_engine(db, hosts, keys, completions=completions, **options)
        await engine.begin()
        stack.push_async_callback(engine.close, 0.2)
        yield Site(db, engine, hosts, keys, folders, completions)
