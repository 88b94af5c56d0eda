"""A coordinator's engine beside one real image store: runner, journal, data port with mutual TLS, over a test wire."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.images.config import ImagesConfig
from agent.images.spool import MemorySpool, Spool
from agent.images.store import ImageStore
from agent.jobs.conversion import Conversion
from agent.jobs.journal import Journal
from agent.jobs.registry import KINDS
from agent.jobs.runner import Runner, RunnerOptions
from agent.jobs.services import Services
from agent.targets.dataport import DataPort
from agent.wire.tls import COORDINATOR, TlsFiles, TlsIdentity, host_role
from coordinator.enrolment.ca import Authority, new_authority
from coordinator.enrolment.own import ensure_role
from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations.engine import Engine
from coordinator.operations.image_streams import ImageStreams
from coordinator.operations.registry import workflows
from coordinator.state import enrolment
from coordinator.state.database import Database
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts as host_rows
from tests.support import databases
from tests.unit.coordinator.operations.support import Hosts, Wire

OWNER = Caller("p1")


@dataclass
class ImageSite:
    db: Database
    engine: Engine
    hosts: Hosts
    keys: KeyStore
    streams: ImageStreams
    port: DataPort
    store: Path

    def files(self) -> list[str]:
        """What lies in the store, as `incoming/ID` and `images/ID`."""
        return sorted(f"{f}/{name}" for f in ("incoming", "images") for name in os.listdir(self.store / f))

    def image(self, **values: object) -> str:
        given = {"disk_format": "raw", "container_format": "bare", **values}
        return str(self.db.write_now(lambda conn: catalog.create(conn, OWNER, given)).row.id)

    def status(self, image_id: str) -> str:
        return str(self.db.read_now(lambda conn: catalog.show(conn, OWNER, image_id)).row.status)


def identity(folder: Path, authority: Authority, role: str) -> TlsIdentity:
    at = folder / role.replace(":", "-")
    ensure_role(at, authority, role)
    return TlsIdentity(TlsFiles.in_folder(at))


async def _no_other_host(*_: object) -> int:
    raise AssertionError("there is one host")


@asynccontextmanager
async def image_site(folder: Path, networks: tuple[str, ...] = ()) -> AsyncIterator[ImageSite]:
    """`networks` are those that images may be fetched from, beside public ones."""
    async with AsyncExitStack() as stack:
        authority = Authority(new_authority())
        db = databases.fresh(folder / "state.db")
        stack.callback(db.close)
        keys = KeyStore(Kek(b"k" * 32))
        port = DataPort(identity(folder, authority, host_role("host-a")), "127.0.0.1")
        await port.start()
        stack.push_async_callback(port.close)
        store = ImageStore(folder / "store")
        store.open()
        (folder / "locks").mkdir()
        journal = Journal(folder / "journal.db")
        await journal.open()
        stack.push_async_callback(journal.close)
        config = ImagesConfig(networks=networks)
        spool = Spool(folder / "spool", 1 << 30)
        means = Conversion(spool, MemorySpool(1 << 30), config, _no_other_host)
        services = Services(host="host-a", journal=journal, backends={}, images=store, data_port=port, conversion=means)
        runner = Runner(journal, KINDS, services, RunnerOptions(lock_dir=folder / "locks"))
        await runner.start()
        stack.push_async_callback(runner.stop, 0.2)
        hosts = Hosts({"host-a": Wire(runner)})
        enrolled = EnrolledHost("host-a", "127.0.0.1", 1, port.port, "0" * 64, utcnow())

        def enrol(conn: object) -> None:
            enrolment.put_host(conn, enrolled)  # type: ignore[arg-type]
            conn.execute(host_rows.insert().values(id="host-a", reachable=True, keeps_images=True))  # type: ignore[attr-defined]

        db.write_now(enrol)
        streams = ImageStreams(db, identity(folder, authority, COORDINATOR), limit=3, open_s=1.0)
        engine = Engine(db, hosts, workflows(keys, streams), owner="c1", exclusive=True, away_deadline_s=0.2)
        await engine.begin()
        stack.push_async_callback(engine.close, 0.2)
        yield ImageSite(db, engine, hosts, keys, streams, port, folder / "store")
