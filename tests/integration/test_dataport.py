"""The data port: its rules, resuming across cut connections, rate and memory, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from agent.base.errors import Invalid
from agent.targets.dataport import DataPort
from agent.targets.tickets import Tickets
from agent.wire.errors import (
    PeerRefused,
    TicketBusy,
    TicketUnknown,
    TransferBroken,
    TransferDenied,
    TransferMismatch,
    TransferTooLarge,
)
from agent.wire.jobs import TransferRef
from agent.wire.tls import COORDINATOR, TlsFiles, TlsIdentity, host_role, server_name
from agent.wire.transfer import SEGMENT, RemoteReader, fetch, file_blocks, push
from coordinator.enrolment.ca import Authority, new_authority
from coordinator.enrolment.own import ensure_role

MIB = 1 << 20


class Hosts:
    """Identities of three hosts and a coordinator, and the data port of host-a."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.authority = folder, Authority(new_authority())
        self.a, self.b, self.c = (self.identity(host_role(f"host-{n}")) for n in "abc")
        self.coordinator = self.identity(COORDINATOR)
        self.port = DataPort(self.a, "127.0.0.1")

    def identity(self, role: str) -> TlsIdentity:
        folder = self.folder / role.replace(":", "-")
        ensure_role(folder, self.authority, role)
        return TlsIdentity(TlsFiles.in_folder(folder))

    def ref(self, name: str, port: int = 0, host: str = "host-a") -> TransferRef:
        return TransferRef(host=host, address="127.0.0.1", port=port or self.port.port, name=name)

    async def read_ticket(self, data: bytes, **options: object) -> TransferRef:
        path = self.folder / "source"
        path.write_bytes(data)
        return self.ref(await self.port.open_ticket(path, "read", host_role("host-b"), **options))  # type: ignore[arg-type]

    async def write_ticket(self, **options: object) -> TransferRef:
        name = await self.port.open_ticket(self.folder / "dest", "write", host_role("host-b"), **options)  # type: ignore[arg-type]
        return self.ref(name)


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    made = Hosts(tmp_path)
    await made.port.start()
    yield made
    await made.port.close()
    assert not [fd for fd in os.listdir("/proc/self/fd") if _target(fd) in (f"{tmp_path}/source", f"{tmp_path}/dest")]


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


async def read_all(ref: TransferRef, identity: TlsIdentity, offset: int = 0) -> bytes:
    async with RemoteReader(ref, identity, patience_s=1) as reader:
        return b"".join([block async for block in reader.blocks(offset)])


async def stream(data: bytes, step: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]


async def test_reading_whole_from_an_offset_and_empty(hosts: Hosts) -> None:
    data = os.urandom(3 * MIB + 17)
    ref = await hosts.read_ticket(data)
    assert await read_all(ref, hosts.b) == data
    assert await read_all(ref, hosts.b, 2 * MIB + 5) == data[2 * MIB + 5 :]
    assert await read_all(ref, hosts.b, len(data)) == b""
    assert await read_all(await hosts.read_ticket(b""), hosts.b) == b""


@pytest.mark.parametrize("size", [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 7])
async def test_writing(hosts: Hosts, size: int) -> None:
    data, told = os.urandom(size), []
    ref = await hosts.write_ticket(max_bytes=size)
    assert await push(ref, hosts.b, stream(data), total=size, progress=lambda *p: told.append(p)) == size
    assert (hosts.folder / "dest").read_bytes() == data
    assert (hosts.folder / "dest").stat().st_mode & 0o777 == 0o600
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert await hosts.port.close_ticket(ref.name) is True
    assert await hosts.port.close_ticket(ref.name) is False


async def test_long_runs_of_zeros_are_stored_as_holes(hosts: Hosts) -> None:
    data = bytes(9 * MIB) + os.urandom(MIB) + bytes(20 * MIB) + b"end" + bytes(5 * MIB)
    ref = await hosts.write_ticket()
    assert await push(ref, hosts.b, stream(data), patience_s=60) == len(data)
    written = hosts.folder / "dest"
    assert written.read_bytes() == data
    assert written.stat().st_blocks * 512 < 8 * MIB


async def test_only_the_peer_in_its_direction_while_it_is_open(hosts: Hosts) -> None:
    reading, writing = await hosts.read_ticket(b"secret"), await hosts.write_ticket()
    for identity in (hosts.c, hosts.a, hosts.coordinator):
        with pytest.raises(TicketUnknown):
            await read_all(reading, identity)
        with pytest.raises(TicketUnknown):
            await push(writing, identity, stream(b"x"))
    with pytest.raises(TicketUnknown):
        await push(reading, hosts.b, stream(b"x"))
    async with aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{hosts.port.port}/v1/transfers/{writing.name}"
        options = {"ssl": hosts.b.client_context(), "server_hostname": server_name(host_role("host-a"))}
        async with session.get(url, **options) as reply:  # type: ignore[arg-type]
            assert reply.status == 404
    with pytest.raises(TicketUnknown):
        await read_all(hosts.ref("A" * 32), hosts.b)
    await hosts.port.close_ticket(reading.name)
    with pytest.raises(TicketUnknown):
        await read_all(reading, hosts.b)
    assert (hosts.folder / "dest").read_bytes() == b""


async def test_the_reader_checks_the_host_and_the_host_its_deny_list(hosts: Hosts) -> None:
    ref = await hosts.read_ticket(b"data")
    with pytest.raises(PeerRefused):
        await read_all(ref.model_copy(update={"host": "host-c"}), hosts.b)
    from cryptography import x509

    serial = x509.load_pem_x509_certificate(hosts.b.files.certificate.read_bytes()).serial_number
    hosts.a.denied = frozenset({f"{serial:x}"})
    with pytest.raises(PeerRefused):
        await read_all(ref, hosts.b)


async def test_max_bytes_and_gaps_are_refused(hosts: Hosts) -> None:
    ref = await hosts.write_ticket(max_bytes=MIB)
    for size in (MIB + 1, 3 * SEGMENT):
        with pytest.raises(TransferTooLarge):
            await push(ref, hosts.b, stream(bytes(size)), patience_s=1)
    assert (hosts.folder / "dest").stat().st_size <= MIB
    async with aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{ref.port}/v1/transfers/{ref.name}"
        options = {"ssl": hosts.b.client_context(), "server_hostname": server_name(host_role("host-a"))}
        for offset, status in (("9", 409), ("-1", 400), ("", 400), ("1e3", 400)):
            async with session.put(url, params={"offset": offset}, data=b"x", **options) as reply:  # type: ignore[arg-type]
                assert reply.status == status, offset


async def test_a_full_disk_is_said_to_be_one(hosts: Hosts) -> None:
    ref = await hosts.write_ticket()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, old[1]))
    try:
        with pytest.raises(TransferDenied):
            await push(ref, hosts.b, stream(b"x" * 3 * SEGMENT), patience_s=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not await hosts.port.close_ticket(ref.name)


async def test_a_completed_write_stays_as_it_is(hosts: Hosts) -> None:
    ref = await hosts.write_ticket()
    await push(ref, hosts.b, stream(b"first"))
    with pytest.raises(TransferMismatch):
        await push(ref, hosts.b, stream(b"something else"))
    assert (hosts.folder / "dest").read_bytes() == b"first"


async def test_tickets_run_out(hosts: Hosts) -> None:
    ref = await hosts.read_ticket(bytes(64 * MIB), lifetime_s=0.3)

    async def slowly() -> None:
        async with RemoteReader(ref, hosts.b, patience_s=1) as reader:
            async for _ in reader.blocks():
                await asyncio.sleep(0.2)

    with pytest.raises((TicketUnknown, TransferBroken)):
        await slowly()


async def test_one_reader_at_a_time(hosts: Hosts) -> None:
    ref = await hosts.read_ticket(bytes(64 * MIB))
    async with RemoteReader(ref, hosts.b) as first:
        blocks = first.blocks()
        await anext(blocks)
        with pytest.raises(TicketBusy):
            await read_all(ref, hosts.b)
        assert len(await anext(blocks)) > 0
        await blocks.aclose()  # type: ignore[attr-defined]


async def test_only_regular_files_and_no_links(tmp_path: Path) -> None:
    tickets = Tickets()
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "missing"):
        with pytest.raises(OSError):
            await tickets.open(tmp_path / name, "read", "host:b", 60, None)
    for name in ("fifo", "."):
        with pytest.raises((Invalid, OSError)):
            await tickets.open(tmp_path / name, "read", "host:b", 60, None)
    with pytest.raises(OSError):
        await tickets.open(tmp_path / "link", "write", "host:b", 60, None)
    assert (tmp_path / "file").read_bytes() == b"x"


@asynccontextmanager
async def cutting_proxy(
    target: int, after: int, cuts: int, freeze: bool = False
) -> AsyncIterator[tuple[int, list[int]]]:
    """Passes TCP on, cutting the first `cuts` connections after about `after` bytes; `freeze` leaves ours half open."""
    done: list[int] = []
    frozen: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int]) -> None:
        while data := await reader.read(65536):
            budget[0] -= len(data)
            if budget[0] < 0:
                return
            writer.write(data)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        budget = [after if len(done) < cuts else 1 << 60]
        done.append(1)
        tasks = [asyncio.create_task(pump(reader, back, budget)), asyncio.create_task(pump(there, writer, budget))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.transport.abort()
        if freeze:
            frozen.append(back)
        else:
            back.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], done
    finally:
        server.close()
        for writer in frozen:
            writer.transport.abort()


@pytest.mark.parametrize("freeze", [False, True])
async def test_reading_resumes_across_cuts(hosts: Hosts, freeze: bool) -> None:
    data = os.urandom(24 * MIB)
    ref = await hosts.read_ticket(data)
    async with cutting_proxy(ref.port, 5 * MIB, 3, freeze) as (port, connections):
        out = os.open(hosts.folder / "copy", os.O_RDWR | os.O_CREAT)
        assert await fetch(hosts.ref(ref.name, port), hosts.b, out, patience_s=60) == len(data)
        os.close(out)
        assert len(connections) == 4
    assert (hosts.folder / "copy").read_bytes() == data


@pytest.mark.parametrize("freeze", [False, True])
async def test_writing_resumes_across_cuts(hosts: Hosts, freeze: bool) -> None:
    data = os.urandom(24 * MIB)
    ref = await hosts.write_ticket(max_bytes=len(data))
    async with cutting_proxy(ref.port, 5 * MIB, 3, freeze) as (port, connections):
        assert await push(hosts.ref(ref.name, port), hosts.b, stream(data), patience_s=60) == len(data)
        assert len(connections) == 4
    assert (hosts.folder / "dest").read_bytes() == data


async def test_a_source_that_changes_is_noticed(hosts: Hosts) -> None:
    data = os.urandom(24 * MIB)
    ref = await hosts.read_ticket(data)

    async def touching(port: int) -> None:
        async with RemoteReader(hosts.ref(ref.name, port), hosts.b, patience_s=5) as reader:
            async for _block in reader.blocks():
                os.utime(hosts.folder / "source", (1, 1))

    async with cutting_proxy(ref.port, 5 * MIB, 1) as (port, _):
        with pytest.raises(TransferMismatch):
            await touching(port)


async def test_patience_ends(hosts: Hosts) -> None:
    ref = await hosts.read_ticket(b"x")
    await hosts.port.close()
    begin = time.monotonic()
    with pytest.raises(TransferBroken):
        await fetch(ref, hosts.b, -1, patience_s=0.5)
    assert time.monotonic() - begin < 30


async def test_256_mib_both_ways_at_a_good_rate_in_bounded_memory(hosts: Hosts) -> None:
    size = 256 * MIB
    block = os.urandom(MIB)
    source = hosts.folder / "source"
    with source.open("wb") as out:
        for _ in range(256):
            out.write(block)
    expected = digest(source)
    reading = hosts.ref(await hosts.port.open_ticket(source, "read", host_role("host-b")))
    writing = await hosts.write_ticket(max_bytes=size)
    copy = os.open(hosts.folder / "copy", os.O_RDWR | os.O_CREAT)
    given = os.open(source, os.O_RDONLY)
    before, peak = resident(), 0

    def watch(_done: int, _total: int | None) -> None:
        nonlocal peak
        peak = max(peak, resident())

    begin = time.monotonic()
    assert await fetch(reading, hosts.b, copy, max_bytes=size, progress=watch) == size
    middle = time.monotonic()
    assert await push(writing, hosts.b, file_blocks(given), total=size, progress=watch) == size
    end = time.monotonic()
    grown = (peak - before) / MIB
    print(f"read {256 / (middle - begin):.0f} MiB/s, write {256 / (end - middle):.0f} MiB/s, grown {grown:.0f} MiB")
    os.close(copy)
    os.close(given)
    assert {digest(hosts.folder / name) for name in ("copy", "dest")} == {expected}
    assert 256 / (middle - begin) > 20
    assert 256 / (end - middle) > 20
    assert grown < 64


def digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
