"""Events on their way to receivers: a real web server that fails in many ways, a real message bus in memory."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError
from sqlalchemy import Connection

from coordinator.notifications.delivery import Delivery
from coordinator.notifications.event import Event, Sink
from coordinator.notifications.settings import MessagingSettings, NotificationsSettings, WebhookSettings
from coordinator.notifications.webhook import Webhook
from coordinator.state import events, issues
from coordinator.state.database import Database
from coordinator.state.events import Change
from tests.support import databases

SECRET = b"a shared secret"


@dataclass
class Receiver:
    """`answers` are given one by one, then 204; `hang` never answers."""

    url: str = ""
    answers: list[int | str] = field(default_factory=list)
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def got(self) -> list[int]:
        return [json.loads(body)["data"]["number"] for _, body in self.calls]


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        answer = made.answers.pop(0) if made.answers else 204
        if answer == "hang":
            await asyncio.sleep(3600)
        assert isinstance(answer, int)
        if answer < 300:
            made.calls.append((dict(request.headers), body))
        return web.Response(status=answer)

    app = web.Application()
    app.router.add_post("/hook", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield made
    finally:
        await runner.cleanup()


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    made = databases.fresh(tmp_path / "db")
    yield made
    await asyncio.to_thread(made.close)


def record(conn: Connection, number: int, type: str = "thing.made") -> None:
    events.record(conn, Change("thing", "t", "p", "u", "req-1"), type, {"number": number})


def add(db: Database, *numbers: int, type: str = "thing.made") -> None:
    def write(conn: Connection) -> None:
        for number in numbers:
            record(conn, number, type)

    db.write_now(write)


def hook(to: Receiver, **more: Any) -> Webhook:
    return Webhook(WebhookSettings(name="one", url=to.url, **{"timeout_s": 5, **more}))


def delivery(db: Database, sink: Sink, mine: Callable[[str], bool] = lambda name: True, **more: Any) -> Delivery:
    return Delivery(db, sink, mine, **{"look_s": 0.02, "give_up_s": 3600, "pause_s": 0.02, **more})


async def begun(db: Database, sink: Sink, **more: Any) -> Delivery:
    """One that has its place: what happens from now on is delivered."""
    made = delivery(db, sink, **more)
    await made.round()
    return made


async def test_events_come_in_order_and_signed(db: Database, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    secret.chmod(0o400)
    async with receiver() as to:
        sink = hook(to, secret_file=secret)
        made = await begun(db, sink)
        add(db, *range(5))
        assert await made.round() == 0
        assert to.got == [0, 1, 2, 3, 4]
        headers, body = to.calls[0]
        assert headers["webhook-id"] == "event-1"
        said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        right = base64.b64encode(hmac.new(SECRET, said, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{right}"
        whole = json.loads(body)
        assert (whole["type"], whole["data"]["seq"], whole["data"]["project_id"]) == ("thing.made", 1, "p")
        await sink.close()


async def test_a_secret_may_be_written_as_the_specification_does(db: Database, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"whsec_" + base64.b64encode(SECRET))
    secret.chmod(0o400)
    async with receiver() as to:
        sink = hook(to, secret_file=secret)
        made = await begun(db, sink)
        add(db, 1)
        await made.round()
        headers, body = to.calls[0]
        said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        assert headers["webhook-signature"].endswith(
            base64.b64encode(hmac.new(SECRET, said, hashlib.sha256).digest()).decode()
        )
        await sink.close()


@pytest.mark.parametrize("fault", [500, 404, 302, "hang"])
async def test_what_is_not_taken_is_sent_again_before_what_follows(db: Database, fault: int | str) -> None:
    async with receiver() as to:
        sink = hook(to, timeout_s=0.3)
        made = await begun(db, sink)
        to.answers = [204, fault, fault, 204]
        add(db, 1, 2, 3)
        pauses = [await made.round() for _ in range(3)]
        assert to.got == [1, 2, 3]
        assert pauses == [0.02, 0.04, 0.0]
        assert await db.read(issues.listing) == []
        await sink.close()


async def test_a_receiver_that_stays_away_is_an_issue_until_it_is_back(db: Database) -> None:
    async with receiver() as to:
        sink = hook(to)
        made = await begun(db, sink)
        to.answers = [503, 503, 503]
        add(db, 1)
        for _ in range(3):
            await made.round()
        (found,) = await db.read(issues.listing)
        assert (found.code, "it answered 503" in found.sentence) == ("notifications.not-delivered", True)
        await made.round()
        assert (to.got, await db.read(issues.listing)) == ([1], [])
        await sink.close()


async def test_an_event_that_is_never_taken_is_passed_over(db: Database) -> None:
    async with receiver() as to:
        sink = hook(to)
        made = await begun(db, sink, give_up_s=0)
        to.answers = [400, 400]
        add(db, 1, 2)
        for _ in range(3):
            await made.round()
        assert to.got == [2]
        (found,) = await db.read(issues.listing)
        assert (found.code, "Event 1 was not delivered" in found.sentence) == ("notifications.given-up", True)
        await sink.close()


async def test_an_event_that_can_not_be_put_into_words_holds_nothing_up(db: Database) -> None:
    sent: list[int] = []

    class Broken:
        name = "broken"

        def wants(self, event: Event) -> bool:
            return True

        async def send(self, event: Event) -> None:
            if event.payload["number"] == 2:
                raise KeyError("volume")
            sent.append(event.payload["number"])

        async def close(self) -> None:
            return None

    made = await begun(db, Broken(), give_up_s=0)
    add(db, 1, 2, 3)
    for _ in range(3):
        await made.round()
    assert sent == [1, 3]
    (found,) = await db.read(issues.listing)
    assert (found.code, "KeyError" in found.sentence) == ("notifications.given-up", True)


async def test_only_the_types_that_are_wanted(db: Database) -> None:
    async with receiver() as to:
        sink = hook(to, types=["create_*", "other.end"])
        made = await begun(db, sink)
        for number, kind in enumerate(("create_volume.end", "thing.made", "other.end", "other.start")):
            add(db, number, type=kind)
        await made.round()
        assert to.got == [0, 2]
        await sink.close()


async def test_a_coordinator_that_starts_goes_on_where_the_last_was(db: Database) -> None:
    async with receiver() as to:
        first = hook(to)
        await begun(db, first)
        await first.close()
        add(db, 1, 2)
        second = hook(to)
        await delivery(db, second).round()
        assert to.got == [1, 2]
        await second.close()


async def test_two_that_deliver_at_once_lose_nothing(db: Database) -> None:
    async with receiver() as to:
        sinks = hook(to), hook(to)
        both = [await begun(db, sink) for sink in sinks]
        add(db, *range(20))
        await asyncio.gather(*(made.round() for made in both))
        await both[0].round()
        assert set(to.got) == set(range(20))
        for sink in sinks:
            await sink.close()


async def test_it_runs_by_itself_where_it_is_its_turn(db: Database) -> None:
    async with receiver() as to:
        asked: list[str] = []

        def mine(name: str) -> bool:
            asked.append(name)
            return len(asked) > 3

        work = asyncio.create_task(delivery(db, hook(to), mine).run())
        async with asyncio.timeout(60):
            while len(asked) < 6:
                await asyncio.sleep(0.01)
            add(db, 1)
            while to.got != [1]:
                await asyncio.sleep(0.01)
        assert set(asked) == {"events:webhook:one"}
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_new_event_is_not_waited_for(db: Database) -> None:
    async with receiver() as to:
        made = await begun(db, hook(to), look_s=3600)
        work = asyncio.create_task(made.run())
        async with asyncio.timeout(60):
            for number in range(3):
                await asyncio.sleep(0.05)
                await db.write(lambda conn, number=number: record(conn, number))
                while to.got != list(range(number + 1)):
                    await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize(
    "bad",
    [
        {"webhooks": [{"name": "A b", "url": "http://h"}]},
        {"webhooks": [{"name": "a", "url": "ftp://h"}]},
        {"webhooks": [{"name": "a", "url": "http://user:password@h/x"}]},
        {"webhooks": [{"name": "a", "url": "http://h"}, {"name": "a", "url": "http://i"}]},
        {"messaging": {}},
        {"messaging": {"transport_url": "rabbit://u:p@h/"}},
    ],
)
def test_settings_that_can_not_be(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NotificationsSettings.model_validate(bad)


def test_the_address_of_the_bus_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("rabbit://u:p@h:5672/\n")
    file.chmod(0o400)
    assert MessagingSettings(transport_url_file=file).url() == "rabbit://u:p@h:5672/"
