"""A connection to PostgreSQL that breaks while it commits: what became of it is found out, and said truly."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.state.database import Database
from coordinator.state.errors import CommitInDoubt, DatabaseUnavailable
from coordinator.state.operations import Operation
from coordinator.state.schema import prepare
from coordinator.state.tables.operations import operations
from coordinator.state.tables.volumes import volumes
from tests.support import postgres
from tests.unit.coordinator.operations.support import REQUESTER, Hosts, new_engine

pytestmark = pytest.mark.postgresql
_COMMIT = b"COMMIT\0"
KEYS = KeyStore(Kek(b"k" * 32))


@dataclass
class Relay:
    """Between a client and the server. `cut` is what becomes of the next COMMIT: of its call, or of its answer."""

    path: str
    cut: str = ""
    cuts: int = 0
    port: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Relay]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            try:
                yield self
            finally:
                for each in self._sockets:
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                    each.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.path)
                self._sockets += [client, server]
                threading.Thread(target=self._calls, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answers, args=(server, client), daemon=True).start()

    def _calls(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.cut == "call" and _COMMIT in data:
                    self.cut, self.cuts = "", self.cuts + 1
                    break
                if self.cut == "answer" and _COMMIT in data:
                    self.cut = "now"
                server.sendall(data)
        _end(client, server)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.cut == "now" and _COMMIT in data:
                    self.cut, self.cuts = "", self.cuts + 1
                    break
                client.sendall(data)
        _end(server, client)


def _end(*both: socket.socket) -> None:
    for each in both:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay(str(postgres.cluster().folder / ".s.PGSQL.5432")).running() as made:
        yield made


@pytest.fixture
def db(relay: Relay) -> Iterator[Database]:
    name = postgres.cluster().database().partition("@/")[2].partition("?")[0]
    made = Database.postgresql(f"postgresql://brickyard@127.0.0.1:{relay.port}/{name}?sslmode=disable", writers=2)
    with closing(made):
        made.write_now(prepare)
        yield made


def count(db: Database) -> tuple[int, int]:
    def read(conn: object) -> tuple[int, int]:
        return (
            len(conn.execute(select(volumes.c.id)).all()), len(conn.execute(select(operations.c.id)).all())  # type: ignore[attr-defined]
        )  # fmt: skip

    return db.read_now(read)


@pytest.mark.parametrize(("cut", "kept"), [("answer", True), ("call", False)])
async def test_an_accepted_operation_is_accepted_once_or_not_at_all(
    relay: Relay, db: Database, cut: str, kept: bool, tmp_path: Path
) -> None:
    engine = new_engine(db, Hosts(), KEYS)
    relay.cut = cut
    new = NewVolume(size=1)
    asked = engine.submit(lambda conn: accept_volume(conn, REQUESTER, KEYS, new))
    if kept:
        operation, row = await asked
        ended = await engine.wait(operation.id, 60)
        assert ended is not None
        assert ended.resource_id == row.id
    else:
        with pytest.raises(DatabaseUnavailable) as refused:
            await asked
        assert not isinstance(refused.value, CommitInDoubt)
    assert relay.cuts == 1
    assert count(db) == ((1, 1) if kept else (0, 0))
    await engine.close(0.2)


@pytest.mark.parametrize(("cut", "kept"), [("answer", 6), ("call", 0)])
async def test_each_of_a_company_is_accepted_once_or_not_at_all(
    relay: Relay, db: Database, cut: str, kept: int
) -> None:
    engine = new_engine(db, Hosts(), KEYS)
    relay.cut = cut
    new = NewVolume(size=1)
    asked = [
        engine.submit(lambda conn: accept_volume(conn, REQUESTER, KEYS, new), together=new.company("p1"))
        for _ in range(6)
    ]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    accepted = sum(isinstance(outcome, tuple) for outcome in outcomes)
    refused = sum(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes)
    assert accepted + refused == 6
    assert accepted >= kept
    assert relay.cuts == 1
    assert count(db) == (accepted, accepted)
    await engine.close(0.2)


async def test_what_was_refused_is_refused_though_the_commit_of_its_neighbours_is_in_doubt(
    relay: Relay, db: Database
) -> None:
    """It stood in the same transaction and was no part of it any more."""
    engine, new, all_here = new_engine(db, Hosts(), KEYS), NewVolume(size=1), threading.Event()

    def first(conn: Connection) -> tuple[Operation, object]:
        assert all_here.wait(60)
        return accept_volume(conn, REQUESTER, KEYS, new)

    def defect(conn: Connection) -> tuple[Operation, object]:
        accept_volume(conn, REQUESTER, KEYS, new)
        if not relay.cuts:  # it is tried once more, alone
            relay.cut = "answer"
        raise IndexError("a defect")

    def plain(conn: Connection) -> tuple[Operation, object]:
        return accept_volume(conn, REQUESTER, KEYS, new)

    company = new.company("p1")
    asked = [asyncio.ensure_future(engine.submit(fn, together=company)) for fn in (first, plain, defect, plain)]
    await asyncio.sleep(0)
    all_here.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [tuple, tuple, IndexError, tuple]
    assert str(outcomes[2]) == "a defect"
    assert relay.cuts == 1
    assert count(db) == (3, 3)
    await engine.close(0.2)


async def test_what_no_row_can_tell_is_said_to_be_in_doubt(relay: Relay, db: Database) -> None:
    relay.cut = "answer"
    with pytest.raises(CommitInDoubt):
        await db.write(lambda conn: conn.execute(volumes.delete()))
    assert relay.cuts == 1
