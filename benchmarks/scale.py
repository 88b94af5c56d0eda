"""What it costs to watch ten thousand hosts: `benchmarks/scale.py [--quick] [--hosts N]`.

Two coordinators on a PostgreSQL of this machine, as their units would run them, and a program that answers for all
hosts (`_hosts.py`): each with a certificate of its own from the site's CA, 20 pools, mutual TLS; on one host in a
hundred something changes in each interval. First both coordinators are measured without hosts, then with all of them
polled twice, over two whole intervals (`--quick`: one). Then one coordinator is killed, and the other takes its
hosts. Printed are memory (PSS, all processes of both), memory for each host, CPU, and the longest time between two
polls of one host. What the simulator itself takes is left out, though it shares the cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _common as common
from _fleet import POSTGRESQL, Pair, Simulator

from tests.support.postgres import Cluster

HOSTS, INTERVAL_S = 10_000, 30.0
QUICK_HOSTS, QUICK_INTERVAL_S = 1_000, 10.0
MIB, INTERVALS, TAKEOVER = 400.0, 2.0, 3.0


def measured(
    site: common.Site, hosts: Simulator, cluster: Cluster, interval_s: float, *, rounds: int
) -> dict[str, float]:
    """Over so many intervals, once every host was polled as often."""
    begun = time.monotonic()
    while (found := hosts.ask("stats"))["fewest"] < rounds:
        if time.monotonic() - begun > 20 * interval_s:
            raise RuntimeError(f"not all hosts are polled: {found}")
        time.sleep(0.5)
    print(f"all hosts were polled ({rounds} times) {time.monotonic() - begun:.0f} s after the start", flush=True)
    assert cluster.process is not None
    database = common.tree(cluster.process.pid)
    before = hosts.ask("reset")
    cpu, other, start = common.cpu_seconds(site.pids), common.cpu_seconds(database), time.monotonic()
    standing = []
    while time.monotonic() - start < rounds * interval_s:
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


def taken_over(site: common.Site, hosts: Simulator, interval_s: float) -> float:
    """The longest time without a poll of a host, in seconds, when one coordinator dies and the other goes on."""
    hosts.ask("reset")
    site.processes[1].kill()
    begun = time.monotonic()
    while (found := hosts.ask("stats"))["unheard"] and time.monotonic() - begun < (TAKEOVER + 1) * interval_s:
        time.sleep(0.5)
    return float(found["worst"])


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
                found = measured(site, hosts, cluster, interval_s, rounds=1 if options.quick else 2)
                takeover = taken_over(site, hosts, interval_s) / interval_s
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
        (f"every {takeover:.2f} when one coordinator dies", takeover <= TAKEOVER),
        (f"{found['memory']:.0f} MiB for both coordinators", found["memory"] <= MIB),
    ]
    return common.goals("scale", figures, f"<= {INTERVALS:.0f} intervals ({TAKEOVER:.0f}), <= {MIB:.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
