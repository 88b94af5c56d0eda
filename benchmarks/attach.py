"""Attach a volume of another host and detach it, beside os-brick and beside the bare tools, in turns, in one boot.

By iSCSI (one portal, then two with multipath) and by NVMe/TCP. Runs on a kernel that has both and their targets:
started elsewhere it starts itself in the guest of the kernel tests.
Both hosts are one machine, so there is no network between them; what is compared is how long each takes to get from
"log in" to a device that may be used, and back.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

SECOND, MIB = "10.9.9.1", 1 << 20
PROCESSORS = len(os.sched_getaffinity(0))
Figures = dict[str, list[float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds (os-brick one) of 7, 8 at once instead of 16")
    parser.add_argument("--dir", type=Path, help="taken for the sake of `make bench`; everything is in the guest")
    given = parser.parse_args()
    if os.environ.get("BRICKYARD_KERNEL") not in {"guest", "host"}:
        command = f".venv/bin/python benchmarks/attach.py{' --quick' if given.quick else ''}"
        bench = [sys.executable, "-m", "tests.kernel.bench", "--command", command]
        return subprocess.call(bench, cwd=ROOT)
    return asyncio.run(_measured(Plan(3, 1, 8, 1) if given.quick else Plan(7, 7, 16, 2)))


@dataclass(frozen=True, slots=True)
class Plan:
    """Rounds of ours and the bare tools, of them those with os-brick, how many attach at once, and how often."""

    rounds: int
    with_brick: int
    many: int
    times: int


async def _measured(plan: Plan) -> int:
    from benchmarks._common import goals, machine
    from tests.integration.agent.agent_process import AgentProcess, Site
    from tests.kernel.support import fabric, initiator, rules

    print(machine(), flush=True)
    figures: Figures = defaultdict(list)
    site = Site()
    home, away = AgentProcess(site, "home"), AgentProcess(site, "away")
    with home.config.open("a") as config:
        config.write(f'[targets.lio]\nportals = ["127.0.0.1", "{SECOND}"]\n[targets.nvmet]\nportals = ["127.0.0.1"]\n')
    try:
        with rules.installed(), fabric.ready(f"{SECOND}/24"), initiator.ready():
            await home.start()
            await away.start()
            for way in (Iscsi(), Nvme()):
                async with _exported(home, way, plan.many) as volumes:
                    await _one_portal(away, way, volumes, plan, figures)
                    await _many(away, way, volumes, plan.times, figures)
            with initiator.ready(multipath=True):
                async with _exported(home, Iscsi(), 1) as volumes:
                    await _two_portals(away, volumes, plan, figures)
    finally:
        await away.kill()
        await home.kill()
        site.remove()
    for name, seconds in figures.items():
        print(f"{name}: median {statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})")
    middle = {name: statistics.median(seconds) for name, seconds in figures.items()}
    # os-brick's NVMe connector answers before udev knows the disk: that is no time to compare with.
    compared = [
        *_against_bare(middle, "iscsi", plan.many), *_against_brick(middle, "iscsi"),
        *_against_bare(middle, "nvme", plan.many), *_against_brick(middle, "nvme")[1:],
        *_against_brick(middle, "two paths"),
    ]  # fmt: skip
    at_once = f"3x one by {PROCESSORS} processors" if _wide() else "1.15x the bare tools' (3x one by 8 processors)"
    return goals("attach", compared, f"1.15x the bare log-in, {plan.many} at once {at_once}, 0.5x os-brick")


def _wide() -> bool:
    """Whether this kernel has the processors to run udev's rules for many devices side by side."""
    return PROCESSORS >= 8


def _against_bare(middle: dict[str, float], name: str, count: int) -> list[tuple[str, bool]]:
    one, bare = middle[f"{name} attach"], middle[f"{name} bare attach"]
    many, bare_many = middle[f"{name} {count} attaches"], middle[f"{name} bare {count} attaches"]
    told = f"{many / one:.1f}x one, {many / bare_many:.2f}x the bare tools' {bare_many / bare:.1f}x"
    reached = many / one <= 3 if _wide() else many / bare_many <= 1.15
    return [
        (f"{name} {one / bare:.2f}x the bare log-in", one / bare <= 1.15),
        (f"{name} {count} at once {told}", reached),
    ]


def _against_brick(middle: dict[str, float], name: str) -> list[tuple[str, bool]]:
    there = middle[f"{name} attach"] / middle[f"{name} os-brick attach"]
    back = middle[f"{name} detach"] / middle[f"{name} os-brick detach"]
    return [(f"{name} {there:.2f}x os-brick", there <= 0.5), (f"{name} detach {back:.2f}x os-brick", back <= 0.5)]


@asynccontextmanager
async def _exported(home: Any, way: Iscsi | Nvme, count: int) -> AsyncIterator[list[tuple[str, str, Any]]]:
    """New volumes of the first agent: id, attachment, connection."""
    from agent.base.ids import new_id
    from agent.wire.jobs import Connection, ExportApply, Generation, VolumeCreate, VolumeDelete, WantedExport
    from tests.integration.agent.agent_process import finish

    made: list[tuple[str, str, Any]] = []
    async with home.client() as told:

        async def export(volume: str, sequence: int, *attachments: str) -> dict[str, Any]:
            wanted = tuple(
                WantedExport.model_validate(
                    {"attachment_id": one, "protocol": way.protocol, "initiator": way.name(), "auth": way.auth}
                )
                for one in attachments
            )
            generation = Generation(incarnation=1, sequence=sequence)
            args = ExportApply(backend="files", volume_id=volume, generation=generation, wanted=wanted)
            secrets = {f"chap.{one}": _secret() for one in attachments if way.auth == "chap"}
            status = await finish(told, f"{new_id()}/export/1", 1, args, **secrets)
            assert status.result is not None, status
            return status.result

        for _ in range(count):
            volume, attachment = new_id(), new_id()
            args = VolumeCreate(backend="files", volume_id=volume, size_bytes=64 * MIB)
            await finish(told, f"{new_id()}/make/1", 1, args)
            (one,) = (await export(volume, 1, attachment))["exported"]
            made.append((volume, attachment, Connection.model_validate(one["connection"])))
        yield made
        for volume, _, _ in made:
            await export(volume, 2)
            await finish(told, f"{new_id()}/delete/1", 1, VolumeDelete(backend="files", volume_id=volume))


def _secret() -> Any:
    from agent.wire.jobs import WireSecret

    return WireSecret.of("passphrase", b"benchmark0123456789")


_sequence = iter(range(1, 1 << 30))


async def _apply(told: Any, volume: str, connection: Any, *attachments: str) -> float:
    """Seconds from the post of the job to its end."""
    from agent.base.ids import new_id
    from agent.wire.jobs import AttachmentApply, Generation, WantedAttachment
    from tests.integration.agent.agent_process import finish

    args = AttachmentApply(
        backend="files", volume_id=volume, generation=Generation(incarnation=1, sequence=next(_sequence)),
        wanted=tuple(WantedAttachment(attachment_id=one) for one in attachments),
        connection=connection if attachments else None,
    )  # fmt: skip
    began = time.monotonic()
    secrets = {"chap": _secret()} if attachments and connection.auth == "chap" else {}
    status = await finish(told, f"{new_id()}/attach/1", 1, args, **secrets)
    assert status.state == "done", status
    return time.monotonic() - began


async def _one_portal(
    away: Any, way: Iscsi | Nvme, volumes: list[tuple[str, str, Any]], plan: Plan, figures: Figures
) -> None:
    volume, attachment, connection = volumes[0]
    one = connection.model_copy(update={"portals": connection.portals[:1]})
    brick = await asyncio.to_thread(_brick, way.brick, False)
    async with away.client() as told:
        for number in range(plan.rounds + 1):
            found: Figures = defaultdict(list)
            await _bare(way, [one], f"{way.title} bare", found)
            found[f"{way.title} attach"].append(await _apply(told, volume, one, attachment))
            subprocess.run(["udevadm", "settle"], check=False)
            found[f"{way.title} detach"].append(await _apply(told, volume, one))
            if 1 <= number <= plan.with_brick:
                await asyncio.to_thread(_by_brick, brick, way.brick_words(one), f"{way.title} os-brick", found)
            _keep(found, figures, number)


async def _many(
    away: Any, way: Iscsi | Nvme, volumes: list[tuple[str, str, Any]], times: int, figures: Figures
) -> None:
    count = len(volumes)
    async with away.client() as told:
        for _ in range(times):
            ones = [(v, a, c.model_copy(update={"portals": c.portals[:1]})) for v, a, c in volumes]
            found: Figures = defaultdict(list)
            await _bare(way, [one for _, _, one in ones], f"{way.title} bare {count}", found)
            for there in ("attach", "detach"):
                figures[f"{way.title} bare {count} {there}es"] += found[f"{way.title} bare {count} {there}"]
            began = time.monotonic()
            await asyncio.gather(*(_apply(told, volume, one, attachment) for volume, attachment, one in ones))
            figures[f"{way.title} {count} attaches"].append(time.monotonic() - began)
            subprocess.run(["udevadm", "settle"], check=False)
            began = time.monotonic()
            await asyncio.gather(*(_apply(told, volume, one) for volume, _, one in ones))
            figures[f"{way.title} {count} detaches"].append(time.monotonic() - began)
            subprocess.run(["udevadm", "settle"], check=False)


async def _two_portals(away: Any, volumes: list[tuple[str, str, Any]], plan: Plan, figures: Figures) -> None:
    ((volume, attachment, connection),) = volumes
    brick = await asyncio.to_thread(_brick, "ISCSI", True)
    async with away.client() as told:
        for number in range(plan.rounds + 1):
            found: Figures = defaultdict(list)
            found["two paths attach"].append(await _apply(told, volume, connection, attachment))
            subprocess.run(["udevadm", "settle"], check=False)
            found["two paths detach"].append(await _apply(told, volume, connection))
            if 1 <= number <= plan.with_brick:
                words = Iscsi().brick_words(connection)
                await asyncio.to_thread(_by_brick, brick, words, "two paths os-brick", found)
            _keep(found, figures, number)


def _keep(found: Figures, figures: Figures, number: int) -> None:
    """The first round, in which everything is loaded, does not count."""
    subprocess.run(["udevadm", "settle"], check=False)
    for name, seconds in found.items():
        print(f"  round {number}: {name} {seconds[0]:.2f} s", flush=True)
        figures[name] += seconds if number else []


class Iscsi:
    """By open-iscsi and LIO, with CHAP."""

    title, protocol, auth, brick, disks = "iscsi", "iscsi", "chap", "ISCSI", "sd"

    def name(self) -> str:
        text = Path("/etc/iscsi/initiatorname.iscsi").read_text()
        return next(line.removeprefix("InitiatorName=") for line in text.split() if line.startswith("InitiatorName="))

    def begin(self, connection: Any) -> None:
        values = {"authmethod": "CHAP", "username": connection.username, "password": _secret().value().decode()}
        _run(*self._node(connection), "-o", "new")
        for name, value in values.items():
            _run(*self._node(connection), "-o", "update", "-n", f"node.session.auth.{name}", "-v", value)

    def words(self, connection: Any) -> tuple[list[str], list[str]]:
        return [*self._node(connection), "--login"], [*self._node(connection), "--logout"]

    def end(self, connection: Any) -> None:
        _run(*self._node(connection), "-o", "delete")

    def _node(self, connection: Any) -> list[str]:
        portal = f"{connection.portals[0].address}:{connection.portals[0].port}"
        return ["iscsiadm", "-m", "node", "-T", connection.target, "-p", portal]

    def brick_words(self, connection: Any) -> dict[str, Any]:
        portals = [f"{portal.address}:{portal.port}" for portal in connection.portals]
        return {
            "target_discovered": False, "target_iqn": connection.target, "target_portal": portals[0], "target_lun": 0,
            "target_portals": portals, "target_iqns": [connection.target] * len(portals),
            "target_luns": [0] * len(portals), "auth_method": "CHAP", "auth_username": connection.username,
            "auth_password": _secret().value().decode(), "volume_id": "v", "access_mode": "rw", "encrypted": False,
        }  # fmt: skip


class Nvme:
    """By the kernel's initiator and nvmet."""

    title, protocol, auth, brick, disks = "nvme", "nvme-tcp", "none", "NVMEOF", "nvme"

    def name(self) -> str:
        from agent.host import nvme

        return nvme.host_nqn() or ""

    def begin(self, connection: Any) -> None:
        """Nothing is noted before a log-in."""

    end = begin

    def words(self, connection: Any) -> tuple[list[str], list[str]]:
        where = connection.portals[0]
        login = ["nvme", "connect", "-t", "tcp", "-n", connection.target, "-a", where.address, "-s", str(where.port)]
        login += ["-q", self.name()]
        return login, ["nvme", "disconnect", "-n", connection.target]

    def brick_words(self, connection: Any) -> dict[str, Any]:
        portals = [(portal.address, portal.port, "tcp") for portal in connection.portals]
        uuid = connection.identity.removeprefix("uuid.")
        return {"target_nqn": connection.target, "portals": portals, "vol_uuid": uuid, "host_nqn": self.name()}


async def _bare(way: Iscsi | Nvme, connections: list[Any], title: str, found: Figures) -> None:
    """What the tools alone need, for all at once: from log-in to udev's word of the disks, from log-out to return."""
    from agent.host import udev

    for one in connections:
        way.begin(one)
    async with udev.subscribed() as events:
        began = time.monotonic()
        await asyncio.to_thread(_all, [way.words(one)[0] for one in connections])
        for _ in connections:
            event = await events.wait(lambda event: event.action == "add" and event.name.startswith(way.disks), 120)
            assert event is not None
        found[f"{title} attach"].append(time.monotonic() - began)
    _run("udevadm", "settle")
    began = time.monotonic()
    await asyncio.to_thread(_all, [way.words(one)[1] for one in connections])
    found[f"{title} detach"].append(time.monotonic() - began)
    _run("udevadm", "settle")
    for one in connections:
        way.end(one)


def _all(commands: list[list[str]]) -> None:
    """Run them side by side; one that fails once more, alone: nvme-cli 2.4 falls over controllers that go meanwhile."""
    pipe = subprocess.PIPE
    running = [subprocess.Popen(one, stdout=pipe, stderr=subprocess.STDOUT, text=True) for one in commands]
    for one in [started for started in running if started.communicate() and started.returncode]:
        again = subprocess.run(one.args, capture_output=True, text=True, check=False)
        if again.returncode:
            raise RuntimeError(f"{one.args!r}: {again.stdout}{again.stderr}")


def _run(*command: str) -> None:
    _all([list(command)])


def _brick(kind: str, multipath: bool) -> Any:
    from agent.connectors import _brick as door

    door.load()
    import os_brick
    from os_brick.initiator import connector
    from os_brick.privileged import default
    from oslo_concurrency import lockutils
    from oslo_config import cfg

    cfg.CONF([], project="brickyard-benchmark")
    lockutils.set_defaults("/tmp")
    os_brick.setup(cfg.CONF)
    default.set_client_mode(False)
    return connector.InitiatorConnector.factory(kind, None, use_multipath=multipath, device_scan_attempts=5)


def _by_brick(brick: Any, words: dict[str, Any], name: str, found: Figures) -> None:
    began = time.monotonic()
    device = brick.connect_volume(dict(words))
    found[f"{name} attach"].append(time.monotonic() - began)
    subprocess.run(["udevadm", "settle"], check=False)
    began = time.monotonic()
    brick.disconnect_volume(dict(words), device)
    found[f"{name} detach"].append(time.monotonic() - began)
    if "target_iqn" in words:
        subprocess.run(["iscsiadm", "-m", "node", "-o", "delete"], check=False, capture_output=True)


if __name__ == "__main__":
    raise SystemExit(main())
