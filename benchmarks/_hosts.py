"""Many hosts for `scale.py`: `_hosts.py enrol …` enters them into a site, `_hosts.py serve …` answers for all of them.

They speak the agents' own protocol: TLS 1.3 with a certificate for each host, signed by the site's CA, chosen by the
name that the caller asks for, and mutual; one listener stands for all, as every address of 127.0.0.0/8 is this machine.
What a poll asks is answered, and jobs that make or delete a volume are done at once, on nothing. All
hosts share one private key, which spares making ten thousand.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import ssl
import sys
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.wire.jobs import JobStatus
from agent.wire.results import HostFacts, Pool, Report
from agent.wire.tls import host_role, server_name
from coordinator.enrolment.ca import Authority, key_pem, new_authority, new_key
from coordinator.enrolment.service import _enter
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.start import ca_store, open_state
from coordinator.state import enrolment as rows
from coordinator.state.tables.columns import utcnow

POOLS, GIB = 20, 1 << 30
_CHUNK = 500


def name_of(number: int) -> str:
    return f"host{number:05d}"


def address_of(number: int) -> str:
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


def enrol(at: Path, url: str, count: int, port: int) -> None:
    """Sign a certificate for each by the site's own CA, and enter it as the enrolment port would."""
    state_dir, kek, folder = at / "one", at / "kek", at / "hosts"
    settings = CoordinatorSettings.model_validate(
        {"coordinator": {"state_dir": str(state_dir)}, "state": {"url": url}, "keys": {"kek_file": str(kek)}}
    )
    opened = open_state(settings)
    authority = Authority(ca_store(settings, opened.db, opened.keys).load_or_create(new_authority))
    key = new_key()
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "key.pem").write_bytes(key_pem(key))
    (folder / "ca.pem").write_text(authority.ca_pem)
    for start in range(0, count, _CHUNK):
        issued = []
        for number in range(start, min(count, start + _CHUNK)):
            signed = authority.issue(host_role(name_of(number)), key.public_key())
            (folder / f"{number}.pem").write_text(signed.chain)
            host = rows.EnrolledHost(
                name_of(number), address_of(number), port, port, signed.spki_sha256, utcnow()
            )  # fmt: skip
            issued.append((host, signed))
        opened.db.write_now(lambda conn, issued=issued: [_enter(conn, *one) for one in issued])  # type: ignore[misc]
    opened.db.close()


@dataclass
class Fleet:
    """What is known of all hosts, and when each was polled."""

    folder: Path
    count: int
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)
    connections: int = 0
    handshakes: int = 0
    polls: int = 0

    def __post_init__(self) -> None:
        self.numbers = {server_name(host_role(name_of(number))): number for number in range(self.count)}
        self.versions = [1] * self.count
        self.last = array("d", [0.0]) * self.count
        self.gaps = array("d", [0.0]) * self.count
        self.times = array("L", [0]) * self.count
        self.server = self._context(0)
        self.server.sni_callback = self._choose

    def _context(self, number: int) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        context.load_cert_chain(self.folder / f"{number}.pem", self.folder / "key.pem")
        context.load_verify_locations(self.folder / "ca.pem")
        return context

    def _choose(self, tls: Any, asked: str | None, _first: ssl.SSLContext) -> int | None:
        number = self.numbers.get(asked or "")
        if number is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        found = self.contexts.get(asked or "")
        if found is None:
            found = self.contexts[asked or ""] = self._context(number)
        tls.context = found
        tls.number = number
        return None

    def reset(self) -> None:
        """Forget what was measured."""
        self.polls = self.handshakes = 0
        for number in range(self.count):
            self.gaps[number] = 0.0
        self.measured = time.monotonic()

    def stats(self) -> dict[str, Any]:
        """Gaps are seconds between two polls of one host, the one that lasts still included."""
        now = time.monotonic()
        gaps = sorted(max(gap, now - last) for gap, last in zip(self.gaps, self.last, strict=True))
        return {
            "polls": self.polls, "handshakes": self.handshakes, "connections": self.connections,
            "fewest": min(self.times), "unheard": sum(last < self.measured for last in self.last), "worst": gaps[-1],
            "p99": gaps[int(len(gaps) * 0.99)],
            "median": gaps[len(gaps) // 2], "cpu": time.process_time(),
        }  # fmt: skip

    def polled(self, number: int) -> None:
        now = time.monotonic()
        if self.last[number]:
            self.gaps[number] = max(self.gaps[number], now - self.last[number])
        self.last[number] = now
        self.times[number] += 1
        self.polls += 1

    async def change(self, share: float, interval_s: float) -> None:
        """On `share` of the hosts some space is taken in each interval."""
        dice, debt = random.Random(1), 0.0
        while True:
            await asyncio.sleep(0.2)
            debt += self.count * share * 0.2 / interval_s
            for _ in range(int(debt)):
                self.versions[dice.randrange(self.count)] += 1
            debt -= int(debt)

    def answer(self, number: int, path: str, body: bytes) -> tuple[int, bytes]:
        where, _, query = path.partition("?")
        if where == "/v1/jobs" and body:
            return 202, _done(json.loads(body)).model_dump_json().encode()
        if where == "/v1/jobs/acknowledge":
            return 200, b'{"acknowledged":0}'
        if where == "/v1/report":
            self.polled(number)
            return 200, self._report(number, query.removeprefix("have=")).model_dump_json().encode()
        what = where.removeprefix("/v1/")
        if what in {"inventory", "attachments", "exports", "jobs"}:
            return 200, b'{"%s":[]}' % what.encode()
        return 404, json.dumps({"error": {"code": "wire.no-such-call", "message": "no such call"}}).encode()

    def _report(self, number: int, have: str) -> Report:
        version = self.versions[number]
        known = have.split(".")
        return Report(
            clock=time.time(), have=f"1.{version}", host=_facts(number) if known[0] != "1" else None,
            pools=_pools(number, version) if known[-1] != str(version) else None, held="held",
        )  # fmt: skip


def _done(asked: dict[str, Any]) -> JobStatus:
    args, result = asked["args"], None
    if asked["kind"] == "volume.create":
        size = args["size_bytes"]
        result = {"volume_id": args["volume_id"], "device_bytes": size, "usable_bytes": size}
    return JobStatus(
        key=asked["key"], epoch=asked["epoch"], kind=asked["kind"], state="done", seq=1, result=result
    )  # fmt: skip


def _facts(number: int) -> HostFacts:
    return HostFacts(
        host=name_of(number), boot_id=hashlib.sha256(str(number).encode()).hexdigest()[:32], arch="x86_64",
        kernel="6.1.0-28-amd64", version="1.0", started_at="2026-11-25T12:00:00+00:00", clock=time.time(),
        initiator_iqn=f"iqn.1993-08.org.debian:01:{number:012x}", addresses=(address_of(number),), data_port=8790,
        capabilities=("iscsi", "nvme-tcp", "dm-crypt", "multipath"),
        job_kinds=("volume.create", "volume.delete", "volume.extend", "snapshot.create", "attachment.apply"),
    )  # fmt: skip


def _pools(number: int, version: int) -> tuple[Pool, ...]:
    return tuple(
        Pool(
            backend=f"backend{index // 5}", name=f"pool{index:02d}", driver="lvm", total_bytes=8000 * GIB,
            free_bytes=(6000 - index) * GIB - (version << 20 if index == version % POOLS else 0),
            allocated_bytes=2000 * GIB, thin=True, thick=True, protocols=("local", "iscsi"),
            capabilities={"media": ("ssd", "nvme", "hdd")[number % 3], "tier": index % 5, "rack": f"r{number // 40}"},
        )
        for index in range(POOLS)
    )  # fmt: skip


class Conversation(asyncio.Protocol):
    """One connection of a coordinator to one of the hosts."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.buffer = fleet, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.number = transport.get_extra_info("ssl_object").number
        self.fleet.connections += 1
        self.fleet.handshakes += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.fleet.connections -= 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            status, body = self.fleet.answer(self.number, head.split(b" ", 2)[1].decode(), rest[:length])
            told = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.transport.write(told.encode() + body)


class _Tls(ssl.SSLObject):
    """Remembers which host it is."""

    number = -1


async def serve(folder: Path, count: int, port: int, interval_s: float) -> None:
    """Answers `reset` and `stats` on standard input by a line of JSON each."""
    load_pem_private_key((folder / "key.pem").read_bytes(), None)
    fleet = Fleet(folder, count)
    fleet.server.sslobject_class = _Tls
    fleet.reset()
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Conversation(fleet), "0.0.0.0", port, ssl=fleet.server, backlog=1024)
    changing = asyncio.create_task(fleet.change(0.01, interval_s))
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("{}", flush=True)
    while order := (await orders.readline()).decode().strip():
        if order == "reset":
            fleet.reset()
        print(json.dumps(fleet.stats()), flush=True)
    changing.cancel()


if __name__ == "__main__":
    words = sys.argv[2:]
    if sys.argv[1] == "enrol":
        enrol(Path(words[0]), words[1], int(words[2]), int(words[3]))
    else:
        asyncio.run(serve(Path(words[0]), int(words[1]), int(words[2]), float(words[3])))
