"""`brickyard key replace`: killed after any of its calls, the next one does what is left; what it has to leave."""

from __future__ import annotations

import asyncio
import inspect
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import delete, update

from coordinator.cli.client.credentials import read
from coordinator.cli.client.session import Session
from coordinator.cli.nouns.key_replace import replace
from coordinator.state import volumes
from coordinator.state.tables.keys import secrets
from tests.support.luks import opens
from tests.unit.coordinator.api.test_manage import FIXED, HOST, files, registered, sealed
from tests.unit.coordinator.api.test_volume_connections import types
from tests.unit.coordinator.api.volumesite import Api, volume_api


class Killed(BaseException):
    """No `except` of the command sees it."""


class Dying(Session):
    """Ends when the answer to its call number `last` has come."""

    def __init__(self, url: str, last: int) -> None:
        super().__init__(read({"OS_AUTH_URL": url, "OS_USERNAME": "root", "OS_PASSWORD": "x", "OS_PROJECT_NAME": "p"}))
        self._url, self._left = url, last

    def _log_in(self) -> None:
        self._headers = {"OpenStack-API-Version": "volume 3.71", "X-Auth-Token": "root"}
        self._bases[""] = self._url

    def _send(self, *args: Any, **more: Any) -> Any:
        answer = super()._send(*args, **more)
        self._left -= 1
        if self._left < 0:
            raise Killed
        return answer


def run(url: str, key: str, last: int) -> Any:
    """What it tells, None when it was killed."""
    session = Dying(url, last)
    try:
        with click.Context(replace):
            return inspect.unwrap(replace.callback)(session, key, yes=True, dry_run=False)  # type: ignore[arg-type]
    except Killed:
        return None
    finally:
        session.close()


async def adopted(api: Api, tmp_path: Path, fixed: str, names: tuple[str, ...] = ("one", "two")) -> list[str]:
    await api("POST", f"/types/{await types(api, 'secret')}/encryption", who="root",
              json={"encryption": {"provider": "luks"}})  # fmt: skip
    made = []
    for name in names:
        await sealed(api, tmp_path, name, "luks1")
        body = {"host": HOST, "ref": {"source-name": name, "encryption-key-id": fixed}, "volume_type": "secret"}
        answer = await api("POST", "/manageable_volumes", who="root", json={"volume": body})
        assert answer.status == 202, answer.body
        await api.settled()
        made.append(answer.body["volume"]["id"])
    return made


@pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
async def test_killed_after_any_call_it_is_run_again(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        fixed = await registered(api, FIXED)
        made = await adopted(api, tmp_path, fixed)
        url, last, told = str(api.session._base_url).rstrip("/"), 0, None
        while told is None:
            told = await asyncio.to_thread(run, url, fixed, last)
            await api.settled()
            last += 1
        assert last > 3, "it was killed after the list of keys, that of volumes, and the order for one of them"
        assert told.values["left"] == 0
        for volume in made:
            shown = (await api("GET", f"/volumes/{volume}", who="root")).body["volume"]
            key = await api.here.db.read(lambda conn, of=shown: api.here.keys.get(conn, of["encryption_key_id"]))
            assert shown["status"] == "available"
            assert opens(files(tmp_path, "volumes") / volume, key.value.hex().encode())
            assert not opens(files(tmp_path, "volumes") / volume, FIXED.hex().encode())
        kept = await api.here.db.read(lambda conn: api.here.keys.listing(conn, None))
        assert len(kept) == 3, "one each, and the fixed one"
        assert (await api("DELETE", f"/brickyard/v1/keys/{fixed}", who="root")).status == 204


@pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
async def test_what_has_no_readable_key_is_told_and_keeps_none_of_the_others(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        fixed = await registered(api, FIXED)
        lost, *more = await adopted(api, tmp_path, fixed, ("one", "two", "three"))
        url = str(api.session._base_url).rstrip("/")
        damaged, left = more[0], []
        for volume, spoil in ((lost, delete(secrets)), (damaged, update(secrets).values(sealed=b"x" * 32))):
            row = await api.here.db.read(lambda conn, volume=volume: volumes.get(conn, volume))
            change = spoil.where(secrets.c.id == row.encryption_key_id)
            await api.here.db.write(lambda conn, change=change: conn.execute(change))
            left.append(row.encryption_key_id)
        told = await asyncio.to_thread(run, url, fixed, 100)
        words = {one["id"]: one["left"] for one in told.values["volumes"]}
        assert (told.values["replaced"], told.values["left"], told.exit_code) == (1, 2, 1)
        assert words.pop(more[1]) is None
        assert f"{left[0]} is missing" in words[lost]
        assert f"{left[1]} is damaged" in words[damaged]
        for volume in (lost, damaged):
            assert (await api("GET", f"/volumes/{volume}", who="root")).body["volume"]["status"] == "available"
            assert opens(files(tmp_path, "volumes") / volume, FIXED.hex().encode())
