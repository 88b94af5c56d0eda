"""What it costs to watch ten thousand hosts: `benchmarks/scale.py [--quick] [--hosts N]`.

Two coordinators on a PostgreSQL of this machine, as their units would run them, and a program that answers for all
hosts (`_hosts.py`): each with a certificate of its own from the site's CA, 20 pools, mutual TLS; on one host in a
hundred something changes in each interval. First both coordinators are measured without hosts, then with all of them
polled twice, over two whole intervals. Printed are memory (PSS, all processes of both), memory for each host, CPU, and
the longest time between two polls of one host. What the simulator itself takes is left out, though it shares the cores.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _common as common

from tests.support.postgres import Cluster

HOSTS, INTERVAL_S = 10_000, 30.0
QUICK_HOSTS, QUICK_INTERVAL_S = 1_000, 10.0
MIB, INTERVALS = 400.0, 2.0
PROGRAM = Path(__file__).with_name("_hosts.py")
POSTGRESQL = {
    "fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB", "autovacuum": "on", "max_connections": "100",
}  # fmt: skip


class Simulator:
    """The hosts, in a process of their own."""

    def __init__(self, folder: Path, count: int, port: int, interval_s: float) -> None:
        command = [sys.executable, PROGRAM, "serve", folder, str(count), str(port), str(interval_s)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])},
        )  # fmt: skip
        self._line()

    def ask(self, order: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(order, file=self.process.stdin, flush=True)
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline() or "null"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Pair:
    """Two coordinators of one site."""

    def __init__(self, at: Path, url: str, interval_s: float) -> None:
        self.at, self.url = at, url
        self.user = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else "nobody"
        owner = pwd.getpwnam(self.user)
        self.ports = common.free_ports(4)
        self.sets = [f"state.url={url}", f"fleet.poll_interval_s={interval_s}", f"keys.kek_file={at}/kek"]
        (at / "kek").write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
        for name in ("one", "two", "hosts"):
            (at / name).mkdir(mode=0o700)
            os.chown(at / name, owner.pw_uid, owner.pw_gid)
        (at / "kek").chmod(0o400)
        os.chown(at / "kek", owner.pw_uid, owner.pw_gid)

    def start(self) -> common.Site:
        site = common.Site(self.at)
        for number, name in enumerate(("one", "two")):
            port, enrolment = self.ports[2 * number : 2 * number + 2]
            sets = [
                *self.sets, f"coordinator.state_dir={self.at}/{name}", f"coordinator.port={port}",
                "coordinator.listen=127.0.0.1", "enrolment.listen=127.0.0.1", f"enrolment.port={enrolment}",
                "enrolment.address=127.0.0.1",
            ]  # fmt: skip
            words = [word for each in sets for word in ("--set", each)]
            site.run(name, "brickyard-coordinator", "serve", *words, user=self.user)
            common._listens(port)
        return site

    def enrol(self, count: int, port: int) -> None:
        site = common.Site(self.at)
        words = [str(self.at), self.url, str(count), str(port)]
        done = site.run("enrol", "python", str(PROGRAM), "enrol", *words, user=self.user).wait()
        if done:
            raise RuntimeError((self.at / "enrol.log").read_text())


def measured(site: common.Site, hosts: Simulator, cluster: Cluster, interval_s: float) -> dict[str, float]:
    """Over two intervals, once every host was polled twice."""
    begun = time.monotonic()
    while (found := hosts.ask("stats"))["fewest"] < 2:
        if time.monotonic() - begun > 20 * interval_s:
            raise RuntimeError(f"not all hosts are polled: {found}")
        time.sleep(0.5)
    print(f"all hosts were polled twice {time.monotonic() - begun:.0f} s after the start", flush=True)
    assert cluster.process is not None
    database = common.tree(cluster.process.pid)
    before = hosts.ask("reset")
    cpu, other, start = common.cpu_seconds(site.pids), common.cpu_seconds(database), time.monotonic()
    standing = []
    while time.monotonic() - start < 2 * interval_s:
        time.sleep(0.5)
        standing.append(hosts.ask("stats")["connections"])
    seconds, found = time.monotonic() - start, hosts.ask("stats")
    memory = common.pss_mib(site.pids)
    for name, size in memory.items():
        print(f"  {size:6.1f} MiB  {name}")
    return {
        **found, "seconds": seconds, "cores": (common.cpu_seconds(site.pids) - cpu) / seconds,
        "memory": sum(memory.values()), "standing": sorted(standing)[len(standing) // 2],
        "database": (common.cpu_seconds(database) - other) / seconds,
        "others": (found["cpu"] - before["cpu"]) / seconds,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 hosts polled every 10 s: within a minute")
    parser.add_argument("--hosts", type=int)
    options = parser.parse_args()
    count = options.hosts or (QUICK_HOSTS if options.quick else HOSTS)
    interval_s = QUICK_INTERVAL_S if options.quick else INTERVAL_S
    print(common.machine())
    cluster = Cluster(POSTGRESQL)
    hosts = None
    try:
        with common.folder(None) as at:
            (port,) = common.free_ports(1)
            pair = Pair(at, cluster.database(), interval_s)
            with pair.start() as site:
                time.sleep(2)
                bare = sum(common.pss_mib(site.pids).values())
            begun = time.monotonic()
            pair.enrol(count, port)
            print(
                f"{count} hosts enrolled in {time.monotonic() - begun:.0f} s; both coordinators without: {bare:.0f} MiB"
            )
            hosts = Simulator(at / "hosts", count, port, interval_s)
            with pair.start() as site:
                found = measured(site, hosts, cluster, interval_s)
    finally:
        if hosts is not None:
            hosts.close()
        cluster.close()
    rate = found["polls"] / found["seconds"]
    print(
        f"{rate:.0f} polls/s; coordinators {found['cores']:.2f} cores ({1000 * found['cores'] / rate:.1f} ms a poll), "
        f"PostgreSQL {found['database']:.2f}, simulator {found['others']:.2f}; "
        f"{found['handshakes'] / found['polls']:.2f} handshakes for a poll, {found['standing']} connections at a time"
    )
    print(
        f"between two polls of a host: median {found['median']:.1f} s, 99 of 100 within {found['p99']:.1f} s; "
        f"{(found['memory'] - bare) * 1024 / count / 2:.1f} KiB for each host in each coordinator"
    )
    lag = found["worst"] / interval_s
    figures = [
        (f"{count} hosts: polled at least every {lag:.2f} intervals", lag <= INTERVALS),
        (f"{found['memory']:.0f} MiB for both coordinators", found["memory"] <= MIB),
    ]
    return common.goals("scale", figures, f"<= {INTERVALS:.0f} intervals, <= {MIB:.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
