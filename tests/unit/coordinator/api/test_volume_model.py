"""Any sequence of calls against a model: the same answers, no status that nobody leaves, quota the sum of the rows."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coordinator.state import operations
from tests.unit.coordinator.api.volumesite import Api, volume_api

SERVERS = ("11111111-2222-3333-4444-555555555555", "22222222-2222-3333-4444-555555555555")
MOUNT = {"mountpoint": "/dev/vdb"}


@dataclass
class Model:
    """One volume as it should be. `held` are (attachment status, server) in the order they were made."""

    status: str = "available"
    size: int = 1
    snapshots: list[int] = field(default_factory=list)
    held: list[tuple[str, str]] = field(default_factory=list)

    @property
    def free(self) -> bool:
        return self.status == "available" and not self.held

    def settle(self) -> None:
        if not self.held:
            self.status = "available"
        elif any(status == "attached" for status, _ in self.held):
            self.status = "in-use"
        elif self.status in {"in-use", "detaching"}:
            self.status = "reserved"


class Player:
    """Makes each call on the site and on the model; `play` compares the two afterwards."""

    def __init__(self, api: Api, volume: str) -> None:
        self.api, self.volume, self.model = api, volume, Model()
        self.taken: list[str] = []
        self.ids: list[str] = []
        self.gone = False

    async def act(self, name: str, body: Any = None) -> int:
        return (await self.api.act(self.volume, name, body, who="root")).status

    async def extend(self) -> tuple[int, bool]:
        ok = self.model.status in {"available", "in-use"}
        status = await self.act("os-extend", {"new_size": self.model.size + 1})
        self.model.size += ok
        return status, ok

    async def snapshot(self) -> tuple[int, bool]:
        ok = self.model.status in {"available", "in-use"}
        made = await self.api("POST", "/snapshots", json={"snapshot": {"volume_id": self.volume}})
        if ok:
            self.taken.append(made.body["snapshot"]["id"])
            self.model.snapshots.append(self.model.size)
        return made.status, ok

    async def drop_snapshot(self) -> tuple[int, bool]:
        if not self.taken:
            return 202, True
        self.model.snapshots.pop()
        return (await self.api("DELETE", f"/snapshots/{self.taken.pop()}")).status, True

    async def revert(self) -> tuple[int, bool]:
        if not self.taken:
            return 202, True
        ok = self.model.free and self.model.snapshots[-1] == self.model.size
        return await self.act("revert", {"snapshot_id": self.taken[-1]}), ok

    async def reserve(self) -> tuple[int, bool]:
        ok = self.model.status == "available"
        status = await self.act("os-reserve")
        if ok:
            self.model.status = "attaching"
        return status, ok

    async def unreserve(self) -> tuple[int, bool]:
        touched = self.model.status in {"attaching", "reserved"}
        ok = not touched or (self.model.status == "attaching" and not self.model.held)
        status = await self.act("os-unreserve")
        if touched and ok:
            self.model.status = "available"
        return status, ok

    async def attach(self) -> tuple[int, bool]:
        again = ("attached", SERVERS[0]) in self.model.held
        taken = any(status == "attached" for status, _ in self.model.held)
        ok = again or (not taken and self.model.status in {"available", "attaching"})
        status = await self.act("os-attach", {"instance_uuid": SERVERS[0], **MOUNT})
        if ok and not again:
            self.model.held.append(("attached", SERVERS[0]))
            self.model.status = "in-use"
        return status, ok

    async def begin_detaching(self) -> tuple[int, bool]:
        ok = self.model.status == "in-use"
        status = await self.act("os-begin_detaching")
        if ok:
            self.model.status = "detaching"
        return status, ok

    async def roll_detaching(self) -> tuple[int, bool]:
        status = await self.act("os-roll_detaching")
        if self.model.status == "detaching":
            self.model.status = "in-use"
        return status, True

    async def detach(self) -> tuple[int, bool]:
        ok = len(self.model.held) < 2
        status = await self.act("os-detach", {})
        if ok and (self.model.held or self.model.status in {"attaching", "reserved", "detaching"}):
            self.model.held = []
            self.model.settle()
        return status, ok

    async def hold(self) -> tuple[int, bool]:
        """An attachment of the newer kind, for the second server."""
        same = any(server == SERVERS[1] for _, server in self.model.held)
        shares = same and self.model.status in {"reserved", "attaching", "in-use"}
        ok = shares or self.model.free
        wanted = {"attachment": {"volume_uuid": self.volume, "instance_uuid": SERVERS[1]}}
        made = await self.api("POST", "/attachments", json=wanted)
        if ok:
            self.model.held.append(("reserved", SERVERS[1]))
            if not shares:
                self.model.status = "reserved"
        return made.status, ok

    async def complete(self) -> tuple[int, bool]:
        found = await self.live()
        if not found:
            return 202, True
        answer = await self.api("POST", f"/attachments/{found[-1]['id']}/action", json={"os-complete": None})
        # One that is repeated late takes nothing back that came after the first.
        if self.model.held[-1][0] != "attached":
            self.model.held[-1] = ("attached", self.model.held[-1][1])
            self.model.settle()
        return answer.status, True

    async def release(self) -> tuple[int, bool]:
        found = await self.live()
        if not found:
            return 202, True
        answer = await self.api("DELETE", f"/attachments/{found[-1]['id']}")
        self.model.held.pop()
        self.model.settle()
        return answer.status, True

    async def force_detach(self) -> tuple[int, bool]:
        status = await self.act("os-force_detach", {"attachment_id": None})
        if self.model.held or self.model.status in {"attaching", "reserved", "detaching"}:
            self.model.held = []
            self.model.settle()
        return status, True

    async def delete(self) -> tuple[int, bool]:
        ok = self.model.free and not self.model.snapshots
        status = (await self.api("DELETE", f"/volumes/{self.volume}")).status
        self.gone = ok
        return status, ok

    async def cascade(self) -> tuple[int, bool]:
        ok = self.model.free
        status = (await self.api("DELETE", f"/volumes/{self.volume}?cascade=true")).status
        self.gone = ok
        return status, ok

    async def live(self) -> list[dict[str, Any]]:
        path = f"/attachments?volume_id={self.volume}&sort=created_at:asc"
        return list((await self.api("GET", path)).body["attachments"])

    async def play(self, call: str) -> None:
        status, ok = await getattr(self, call)()
        assert (status < 300) == ok, (call, status, self.model)
        await self.api.settled()
        await self.compare(call)

    async def compare(self, call: str) -> None:
        shown = await self.api("GET", f"/volumes/{self.volume}")
        limits = (await self.api("GET", "/limits")).body["limits"]["absolute"]
        used = (limits["totalVolumesUsed"], limits["totalSnapshotsUsed"], limits["totalGigabytesUsed"])
        assert await self.api.here.db.read(lambda conn: operations.listing(conn, active=True)) == []
        if self.gone:
            assert (shown.status, used) == (404, (0, 0, 0)), call
            return
        model, volume = self.model, shown.body["volume"]
        assert (volume["status"], volume["size"]) == (model.status, model.size), (call, model)
        assert [one["status"] for one in await self.live()] == [status for status, _ in model.held], (call, model)
        assert used == (1, len(model.snapshots), model.size + sum(model.snapshots)), call


CALLS = (
    "extend", "snapshot", "drop_snapshot", "revert", "reserve", "unreserve", "attach", "begin_detaching",
    "roll_detaching", "detach", "hold", "complete", "release", "force_detach", "delete", "cascade",
)  # fmt: skip


async def _played(calls: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="brickyard-model-") as folder:
        async with volume_api(Path(folder)) as api:
            player = Player(api, (await api.volume())["id"])
            for call in calls:
                if player.gone:
                    break
                await player.play(call)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(["attach", "begin_detaching", "complete"])
@given(st.lists(st.sampled_from(CALLS), min_size=1, max_size=14))
def test_any_sequence_of_calls_is_as_the_model_says(calls: list[str]) -> None:
    asyncio.run(_played(calls))
