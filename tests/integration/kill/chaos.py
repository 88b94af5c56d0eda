"""What the chaos run does: users who ask at random at either coordinator, and misfortunes that befall the site."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from agent.privsep import account as accounts
from tests.support import postgres
from tests.support.api import AWAY, Refused
from tests.support.callers import NOT_DONE, Callers
from tests.support.disks import SmallDisk
from tests.support.proxy import Cut, Proxy
from tests.support.site import Part, Site

PAST_LEASE_S = 12.0
MARK = 64 * 1024
DISK_MIB, RATIO = 96, 400.0
Row = dict[str, Any]


class World:
    """The site, with a small disk below each agent's volumes and a network that can be cut before its control port."""

    def __init__(self, site: Site, stack: ExitStack) -> None:
        self.site = site
        account = accounts.choose(dev=True)
        self.disks: dict[str, SmallDisk] = {}
        self.links: dict[str, Proxy] = {}
        for host, part in site.agents.items():
            at = site.layout.volumes(host)
            disk = SmallDisk(site.folder / "disks" / f"{host}.img", at, DISK_MIB, (account.uid, account.gid))
            stack.callback(disk.close)
            self.disks[host] = disk
            part.sets += (f"backends.files.path={at}", f"backends.files.max_over_subscription={RATIO}")
            port = int(_value(part.config, "port"))
            self.links[host] = stack.enter_context(Proxy(port).relaying())
            part.more["reach"] = self.links[host].port

    def log_in(self) -> None:
        self.callers = {part.name: Callers(part.api) for part in self.site.coordinators}


def _value(config: Path, key: str) -> str:
    return next(line.split("=")[1].strip() for line in config.read_text().splitlines() if line.startswith(f"{key} ="))


class Users:
    """Each call is one that makes sense, at a coordinator picked at random; what was asked before is not waited for."""

    def __init__(self, world: World, choose: random.Random) -> None:
        self.world, self.site, self.choose, self.count = world, world.site, choose, 0
        self.done: dict[str, int] = {}
        self.marks: dict[str, bytes] = {}
        self.inherited: dict[str, bytes | None] = {}
        self.checked = 0

    def act(self) -> None:
        calls: list[Callable[[], object]] = [
            self.create, self.create, self.clone, self.restore, self.extend, self.snapshot, self.delete,
            self.delete_snapshot, self.attach, self.detach,
        ]  # fmt: skip
        call = self.choose.choice(calls)
        with suppress(IndexError, *AWAY, *NOT_DONE):
            try:
                call()
            except Refused as refused:
                if refused.status == 400 and '"state.' not in refused.text:
                    raise AssertionError(f"{call.__name__} makes no sense") from refused
            else:
                self.done[call.__name__] = self.done.get(call.__name__, 0) + 1

    @property
    def part(self) -> Part:
        return self.choose.choice([part for part in self.site.coordinators if part.alive])

    @property
    def callers(self) -> Callers:
        return self.world.callers[self.part.name]

    def create(self) -> None:
        self.count += 1
        self.callers.cinder.volumes.create(self.choose.randint(1, 3), name=f"v{self.count}")

    def clone(self) -> None:
        self.callers.sdk.create_volume(size=9, name="clone", source_volume_id=self.volume())

    def restore(self) -> None:
        self.callers.cinder.volumes.create(9, name="restored", snapshot_id=self.live("snapshots")["id"])

    def extend(self) -> None:
        self.callers.cinder.volumes.extend(self.volume(), self.choose.randint(2, 9))

    def snapshot(self) -> None:
        self.callers.sdk.create_snapshot(volume_id=self.volume(), name="s", is_forced=True)

    def delete(self) -> None:
        self.callers.cinder.volumes.delete(self.volume())

    def delete_snapshot(self) -> None:
        self.callers.sdk.delete_snapshot(self.live("snapshots")["id"])

    def attach(self) -> None:
        row = self.live("volumes")
        if row["host_id"]:
            wanted = {"volume_id": row["id"], "host_id": row["host_id"]}
            self.part.api.post("/brickyard/v1/attachments", wanted)

    def detach(self) -> None:
        self.part.api.delete(f"/brickyard/v1/attachments/{self.live('attachments')['id']}")

    def live(self, table: str) -> Row:
        """Any row, in an order that a seed reproduces."""
        rows = sorted(self.site.truths.live(table), key=lambda row: (row["created_at"], row["id"]))
        return self.choose.choice(rows)

    def volume(self) -> str:
        return str(self.live("volumes")["id"])

    def mark(self) -> None:
        """Write into new volumes that nobody reads or writes now; what was written must be there ever after.

        A copy has what its source had when it was asked for: what was written in an earlier round, or nothing.
        """
        volumes, snapshots = self.site.truths.live("volumes"), self.site.truths.live("snapshots")
        for row in snapshots:
            if row["id"] not in self.inherited:
                self.inherited[row["id"]] = self.marks.get(row["volume_id"])
                self._is(row, self.inherited[row["id"]])
        for row in volumes:
            if row["id"] not in self.inherited:
                source = row["source_volid"] or row["snapshot_id"]
                self.inherited[row["id"]] = self.marks.get(source) or self.inherited.get(row["snapshot_id"])
        for row in volumes:
            if row["id"] in self.marks or row["status"] != "available":
                continue
            data = self.inherited[row["id"]]
            if data is not None:
                self._is(row, data)
            else:
                data = self.choose.randbytes(MARK)
                with suppress(OSError), self.file(row).open("r+b") as out:
                    out.write(data)
            self.marks[row["id"]] = data

    def file(self, row: Row) -> Path:
        """Where a volume or snapshot lies."""
        if "volume_size" in row:
            (source,) = self.site.truths.rows("SELECT host_id FROM volumes WHERE id = ?", row["volume_id"])
            return self.site.layout.volumes(source["host_id"]) / "snapshots" / str(row["id"])
        return self.site.layout.volumes(str(row["host_id"])) / "volumes" / str(row["id"])

    def check(self) -> None:
        """Contents as they were written, of everything that is good to use."""
        for row in self.site.truths.live("volumes"):
            if row["id"] in self.marks and row["status"] in {"available", "in-use"}:
                self._is(row, self.marks[row["id"]])
        for row in self.site.truths.live("snapshots"):
            if row["status"] == "available":
                self._is(row, self.inherited.get(row["id"]))

    def _is(self, row: Row, data: bytes | None) -> None:
        if data is None or row["status"] not in {"available", "in-use"}:
            return
        with self.file(row).open("rb") as written:
            assert written.read(MARK) == data, f"contents of {row['id']} were lost: {row}"
        self.checked += 1


class Misfortunes:
    """Each befalls the site while its users go on, and is over when it returns; what stood still or died is back."""

    def __init__(self, world: World, choose: random.Random, users: Users) -> None:
        self.world, self.site, self.choose, self.users = world, world.site, choose, users
        self.done: list[str] = []
        self._left: list[Callable[[], None]] = []

    def strike(self) -> None:
        """Each kind once in an order of chance, then again in another."""
        if not self._left:
            self._left = [
                self.kill_coordinator, self.kill_agent, self.pause_coordinator, self.pause_agent, self.database_dies,
                self.kill_two, self.cut_off, self.answers_lost, self.disk_full, self.kill_agent_and_database,
            ]  # fmt: skip
            self.choose.shuffle(self._left)
        blow = self._left.pop()
        self.done.append(blow.__name__)
        blow()

    def _busy(self, seconds: float) -> None:
        """The users go on meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.users.act()

    @property
    def agent(self) -> Part:
        return self.choose.choice(list(self.site.agents.values()))

    def _die(self, *parts: Part) -> None:
        for part in parts:
            part.kill()
            part.api.hang_up()
        self._busy(self.choose.uniform(0, 2))
        for part in parts:
            part.start()

    def kill_coordinator(self) -> None:
        self._die(self.choose.choice(self.site.coordinators))

    def kill_agent(self) -> None:
        self._die(self.agent)

    def kill_two(self) -> None:
        self._die(self.choose.choice(self.site.coordinators), self.agent)

    def pause_coordinator(self) -> None:
        """Past its lease: the other takes over, and what this one does when it wakes must not count."""
        part = self.choose.choice(self.site.coordinators)
        others = [other for other in self.site.coordinators if other is not part]
        part.pause()
        try:
            until = time.monotonic() + PAST_LEASE_S
            while time.monotonic() < until:
                with suppress(Refused, *AWAY):
                    self.choose.choice(others).api.create_volume("meanwhile")
                time.sleep(0.5)
        finally:
            part.go_on()

    def pause_agent(self) -> None:
        part = self.agent
        part.pause()
        try:
            self._busy(self.choose.choice((1.0, 3.0, PAST_LEASE_S)))
        finally:
            part.go_on()

    def database_dies(self) -> None:
        postgres.cluster().kill()
        postgres.cluster().start()

    def kill_agent_and_database(self) -> None:
        part = self.agent
        part.kill()
        self.database_dies()
        part.start()

    def cut_off(self) -> None:
        self._cut("both", self.choose.choice((2.0, PAST_LEASE_S)))

    def answers_lost(self) -> None:
        """What is asked arrives, and nobody hears of it."""
        self._cut("answers", 3.0)

    def _cut(self, what: Cut, seconds: float) -> None:
        links = self.choose.sample(list(self.world.links.values()), 2)
        for link in links:
            link.cut(what)
        try:
            self._busy(seconds)
        finally:
            for link in links:
                link.mend()

    def disk_full(self) -> None:
        disks = self.choose.sample(list(self.world.disks.values()), 2)
        for disk in disks:
            disk.fill()
        try:
            self._busy(2.0)
            for part in self.site.coordinators:
                part.api.settle(30)
        finally:
            for disk in disks:
                disk.free()
