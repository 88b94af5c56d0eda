"""What the chaos run does: users who ask at random at either coordinator, and misfortunes that befall the site."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.support import postgres
from tests.support.api import AWAY, Refused
from tests.support.site import Part, Site

PAST_LEASE_S = 12.0
MARK = 64 * 1024


class Users:
    """Each call is one that makes sense, at a coordinator picked at random; what was asked before is not waited for."""

    def __init__(self, site: Site, choose: random.Random) -> None:
        self.site, self.choose, self.count = site, choose, 0
        self.done: dict[str, int] = {}
        self.marks: dict[str, bytes] = {}
        self.inherited: dict[str, bytes | None] = {}

    def act(self) -> None:
        calls: list[Callable[[], object]] = [
            self.create, self.create, self.clone, self.extend, self.snapshot, self.delete, self.delete_snapshot,
            self.attach, self.detach,
        ]  # fmt: skip
        call = self.choose.choice(calls)
        with suppress(Refused, IndexError, *AWAY):
            call()
            self.done[call.__name__] = self.done.get(call.__name__, 0) + 1

    @property
    def api(self):  # type: ignore[no-untyped-def]
        return self.choose.choice([part for part in self.site.coordinators if part.alive]).api

    def create(self) -> None:
        self.count += 1
        self.api.create_volume(f"v{self.count}", self.choose.randint(1, 3))

    def clone(self) -> None:
        volume = self.volume()
        self.api.create_volume("clone", 9, source_volid=volume)

    def extend(self) -> None:
        self.api.post(f"/v3/volumes/{self.volume()}/action", {"os-extend": {"new_size": self.choose.randint(2, 9)}})

    def snapshot(self) -> None:
        self.api.post("/v3/snapshots", {"snapshot": {"volume_id": self.volume(), "name": "s"}})

    def delete(self) -> None:
        self.api.delete(f"/v3/volumes/{self.volume()}")

    def delete_snapshot(self) -> None:
        found = self.site.truths.live("snapshots")
        self.api.delete(f"/v3/snapshots/{self.choose.choice(found)['id']}")

    def attach(self) -> None:
        row = self.choose.choice(self.site.truths.live("volumes"))
        if row["host_id"]:
            self.api.post("/brickyard/v1/attachments", {"attachment": {"volume_id": row["id"], "host": row["host_id"]}})

    def detach(self) -> None:
        row = self.choose.choice(self.site.truths.live("attachments"))
        self.api.delete(f"/brickyard/v1/attachments/{row['id']}")

    def volume(self) -> str:
        return str(self.choose.choice(self.site.truths.live("volumes"))["id"])

    def mark(self) -> None:
        """Write into new volumes that nobody reads or writes now; what was written must be there at the end.

        A clone has what its source had, if that was written before the clone was asked for.
        """
        rows = self.site.truths.live("volumes")
        for row in rows:
            self.inherited.setdefault(row["id"], self.marks.get(row["source_volid"]))
        for row in rows:
            if row["id"] in self.marks or row["status"] != "available":
                continue
            data = self.inherited[row["id"]]
            if data is None:
                data = self.choose.randbytes(MARK)
                with self.file(row).open("r+b") as out:
                    out.write(data)
            self.marks[row["id"]] = data

    def file(self, row: dict[str, object]) -> Path:
        return self.site.layout.volumes(str(row["host_id"])) / "volumes" / str(row["id"])

    def check_marks(self) -> int:
        checked = 0
        for row in self.site.truths.live("volumes"):
            if row["id"] in self.marks and row["status"] in {"available", "in-use"}:
                with self.file(row).open("rb") as written:
                    assert written.read(MARK) == self.marks[row["id"]], f"contents of {row['id']} were lost"
                checked += 1
        return checked


class Misfortunes:
    """Each befalls the site while its users go on, and is over when it returns; what stood still or died is back."""

    def __init__(self, site: Site, choose: random.Random, users: Users) -> None:
        self.site, self.choose, self.users = site, choose, users
        self.done: list[str] = []

    def strike(self) -> None:
        blows: list[Callable[[], None]] = [
            self.kill_coordinator, self.kill_coordinator, self.kill_agent, self.kill_agent, self.pause_coordinator,
            self.pause_agent, self.database_dies, self.kill_two,
        ]  # fmt: skip
        blow = self.choose.choice(blows)
        self.done.append(blow.__name__)
        blow()

    def _busy(self, seconds: float) -> None:
        """The users go on meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.users.act()

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
        self._die(self.choose.choice(list(self.site.agents.values())))

    def kill_two(self) -> None:
        self._die(self.choose.choice(self.site.coordinators), self.choose.choice(list(self.site.agents.values())))

    def pause_coordinator(self) -> None:
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
        part = self.choose.choice(list(self.site.agents.values()))
        part.pause()
        try:
            self._busy(self.choose.uniform(0.5, 3))
        finally:
            part.go_on()

    def database_dies(self) -> None:
        postgres.cluster().kill()
        postgres.cluster().start()
