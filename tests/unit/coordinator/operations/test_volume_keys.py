"""Who owns which key while volumes are copied: the key store and the headers on the host's disk, beside each other."""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select

from agent.base.ids import new_id
from agent.luks import header, slots
from agent.luks.model import Secret, passphrase
from agent.luks.unlock import unlock
from agent.luks.window import whole_file
from coordinator.operations.create_snapshot import NewSnapshot, accept_snapshot
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.operations.rekey_volume import NotEncrypted, accept_rekey
from coordinator.operations.retype_volume import ChangesEncryption, Means, Wanted, retype
from coordinator.scheduler.claims import release
from coordinator.scheduler.placement import Scheduler
from coordinator.state import deposits, messages, operations, types, volumes
from coordinator.state.errors import TransitionRefused
from coordinator.state.tables.fleet import pools
from coordinator.state.tables.keys import secrets
from tests.support.luks import opens
from tests.unit.coordinator.operations.support import REQUESTER, Site, new_engine, site

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")

MIB, GIB, SMALL = 1 << 20, 1 << 30, 8 << 20


async def encrypted_type(here: Site, name: str = "secret", **values: Any) -> str:
    def make(conn: Any) -> str:
        row = types.create(conn, name, None)
        given = {"provider": "luks", "cipher": None, "key_size": None, "control_location": "front-end", **values}
        types.put_encryption(conn, row.id, given)
        return str(row.id)

    return await here.db.write(make)


async def create(here: Site, **wanted: Any) -> Row[Any]:
    new = NewVolume(**{"size": 1, **wanted})
    operation, row = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
    assert await here.engine.wait(operation.id, 60) is not None
    return await here.db.read(lambda conn: volumes.get(conn, row.id))


def file_of(here: Site, row: Row[Any]) -> Path:
    return here.folders[row.host_id] / "volumes" / "volumes" / str(row.id)


async def key_of(here: Site, row: Row[Any]) -> bytes:
    found = await here.db.read(lambda conn: here.keys.get(conn, row.encryption_key_id))
    return passphrase(Secret(found.type, found.value))


async def kept(here: Site) -> set[str]:
    """Ids of all secrets of users."""
    found = await here.db.read(lambda conn: conn.execute(select(secrets.c.id).where(secrets.c.project_id != "")).all())
    return {row.id for row in found}


async def test_a_copy_has_a_key_of_its_own_and_no_other_is_left(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        first = await create(here, volume_type_id=await encrypted_type(here))
        wanted = NewSnapshot(volume_id=first.id, name="s")
        operation, snapshot = await here.engine.submit(lambda c: accept_snapshot(c, REQUESTER, here.keys, wanted))
        await here.engine.wait(operation.id, 60)
        copies = [await create(here, source_volid=first.id), await create(here, snapshot_id=snapshot.id)]
        for copy in copies:
            assert opens(file_of(here, copy), await key_of(here, copy))
            assert not opens(file_of(here, copy), await key_of(here, first))
        owned = {row.encryption_key_id for row in (first, *copies)} | {snapshot.encryption_key_id}
        assert len(owned) == 4
        assert await kept(here) == owned
        posted = here.hosts.wires["host-a"].posted
        assert [sorted(job.secrets) for job in posted if job.kind == "volume.clone"] == [["source", "volume"]] * 2


async def test_a_copy_made_by_an_older_agent_owns_a_copy_of_the_key(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        here.hosts.wires["host-a"].unknown = frozenset({"rekey"})
        first = await create(here, volume_type_id=await encrypted_type(here))
        copy = await create(here, source_volid=first.id)
        assert copy.status == "available"
        assert copy.encryption_key_id != first.encryption_key_id
        assert await key_of(here, copy) == await key_of(here, first)
        assert opens(file_of(here, copy), await key_of(here, copy))
        assert await kept(here) == {first.encryption_key_id, copy.encryption_key_id}


async def test_a_copy_whose_source_the_key_does_not_open_fails_and_leaves_no_copied_key(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        type_id = await encrypted_type(here)
        first, other = await create(here, volume_type_id=type_id), await create(here, volume_type_id=type_id)
        subprocess.run(["cp", "--sparse=always", file_of(here, other), file_of(here, first)], check=True)
        copy = await create(here, source_volid=first.id)
        assert copy.status == "error"
        assert "does not open" in copy.attention
        assert not (here.folders["host-a"] / "volumes" / "volumes" / copy.id).exists()
        assert await kept(here) == {row.encryption_key_id for row in (first, other, copy)}


async def small(here: Site, row: Row[Any]) -> Row[Any]:
    """The volume with little inside, so that all of it is encrypted in no time."""
    less = GIB - SMALL
    os.truncate(file_of(here, row), row.device_bytes - less)
    values = {"usable_bytes": SMALL, "device_bytes": row.device_bytes - less}
    await here.db.write(lambda conn: (volumes.set_values(conn, row.id, **values), release(conn, row.pool_id, less)))
    return await here.db.read(lambda conn: volumes.get(conn, row.id))


async def retyped(here: Site, row: Row[Any], type_id: str) -> Row[Any]:
    def change(conn: Any) -> Any:
        fresh = volumes.get(conn, row.id)
        operation, _ = retype(conn, REQUESTER, Means(here.keys, Scheduler()), fresh, Wanted(type_id, on_demand=True))
        return operation, None

    operation, _ = await here.engine.submit(change)
    await here.engine.wait(operation.id, 60)
    return await here.db.read(lambda conn: volumes.get(conn, row.id))


async def promised(here: Site) -> int:
    return int(await here.db.read(lambda conn: conn.execute(select(pools.c.provisioned_bytes)).scalar_one()))


async def plain_type(here: Site, name: str = "plain") -> str:
    return await here.db.write(lambda conn: str(types.create(conn, name, None).id))


async def test_a_retype_gives_and_takes_encryption_with_the_key(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        plain, secret = await plain_type(here), await encrypted_type(here)
        other = await encrypted_type(here, "other", provider="luks2", key_size=256)
        row = await small(here, await create(here, volume_type_id=plain))
        with file_of(here, row).open("r+b") as file:
            file.write(b"content" * 1000)
        serpent = await encrypted_type(here, "serpent", cipher="serpent-cbc-essiv:sha256")
        wanted = (secret, 2 * MIB, "luks1"), (other, 16 * MIB, "luks2"), (serpent, 2 * MIB, "luks1"), (plain, 0, None)
        for type_id, size, fmt in wanted:
            row = await retyped(here, row, type_id)
            assert (row.status, row.volume_type_id, row.encryption_format) == ("available", type_id, fmt)
            assert row.device_bytes == file_of(here, row).stat().st_size == SMALL + size
            assert row.usable_bytes == SMALL
            assert await promised(here) == SMALL + size
            assert await kept(here) == ({row.encryption_key_id} if fmt else set())
            if type_id == serpent:
                assert (row.encryption_cipher, row.encryption_key_size) == ("serpent-cbc-essiv:sha256", 256)
                with file_of(here, row).open("rb") as file:
                    window = whole_file(file.fileno())
                    opened = unlock(window, header.read(window), await key_of(here, row))
                    assert opened.header.details.cipher == "serpent-cbc-essiv:sha256"
                    assert opened.decrypt(window.exact(size, 8192), 0) == b"content" * 1000 + bytes(1192)
            elif fmt:
                assert opens(file_of(here, row), await key_of(here, row))
        with file_of(here, row).open("rb") as file:
            assert file.read(8000) == b"content" * 1000 + bytes(1000)


@pytest.fixture
def without_camellia(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where OpenSSL was built without it."""
    for place in ("primitives", "decrepit"):
        module = importlib.import_module(f"cryptography.hazmat.{place}.ciphers.algorithms")
        monkeypatch.delattr(module, "Camellia", raising=False)


@pytest.mark.usefixtures("without_camellia")
async def test_a_retype_that_fails_leaves_the_volume_as_it_was(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        secret, odd = await encrypted_type(here), await encrypted_type(here, "odd", cipher="camellia-xts-plain64")
        row = await small(here, await create(here, volume_type_id=secret))
        before = await key_of(here, row)
        after = await retyped(here, row, odd)
        assert {**after._mapping, "updated_at": None} == {**row._mapping, "updated_at": None}
        assert opens(file_of(here, row), before)
        assert await kept(here) == {row.encryption_key_id}
        assert await promised(here) == row.device_bytes
        told = await here.db.read(lambda conn: messages.listing(conn, "p1"))
        assert "lack camellia" in told[0].user_message
        # The type that it had may be gone by then.
        plain = await plain_type(here)
        row = await small(here, await create(here, volume_type_id=plain))
        wire = here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        wire.arrived.clear()
        waiting = asyncio.create_task(retyped(here, row, odd))
        await wire.arrived.wait()
        await here.db.write(lambda conn: types.remove(conn, plain))
        wire.held.set()
        assert (await waiting).volume_type_id is None


async def test_what_the_host_has_done_stays_done_although_it_was_cancelled(tmp_path: Path) -> None:
    """The answers are lost, and the cancellation comes when another coordinator has the operation."""
    async with site(tmp_path) as here:
        secret, wire = await encrypted_type(here), here.hosts.wires["host-a"]
        row = await small(here, await create(here, volume_type_id=await plain_type(here)))
        wire.lose_answers = 1 << 30
        waiting = asyncio.create_task(retyped(here, row, secret))
        async with asyncio.timeout(60):
            while file_of(here, row).stat().st_size == SMALL:
                await asyncio.sleep(0)
        (operation,) = await here.db.read(lambda conn: operations.listing(conn, active=True))
        await here.engine.close(0.2)
        waiting.cancel()
        assert await here.db.write(lambda conn: operations.request_cancel(conn, operation.id))
        wire.lose_answers = 0
        other = new_engine(here.db, here.hosts, here.keys, "c2")
        await other.begin()
        done = await other.wait(operation.id, 60)
        await other.close(0.2)
        assert done is not None
        assert done.state == "done"
        row = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (row.status, row.volume_type_id) == ("available", secret)
        assert opens(file_of(here, row), await key_of(here, row))


@pytest.mark.parametrize("why", ["snapshot", "policy"])
async def test_a_retype_that_can_not_be_is_refused_at_once(tmp_path: Path, why: str) -> None:
    async with site(tmp_path) as here:
        secret, row = await encrypted_type(here), await create(here, volume_type_id=await plain_type(here))
        if why == "snapshot":
            wanted = NewSnapshot(volume_id=row.id, name="s")
            operation, _ = await here.engine.submit(lambda c: accept_snapshot(c, REQUESTER, here.keys, wanted))
            await here.engine.wait(operation.id, 60)
            with pytest.raises(TransitionRefused):
                await retyped(here, row, secret)
        else:
            with pytest.raises(ChangesEncryption, match="is encrypted"):
                await here.db.write(
                    lambda conn: retype(conn, REQUESTER, Means(here.keys, Scheduler()), row, Wanted(secret))
                )
        after = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (after.status, after.volume_type_id) == ("available", row.volume_type_id)
        assert await kept(here) == set()


async def test_a_deposited_key_has_the_managers_id_and_goes_from_there_with_the_volume(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await create(here, volume_type_id=await encrypted_type(here))
        old, new, before = row.encryption_key_id, new_id(), await key_of(here, row)
        missing = await here.db.read(lambda conn: deposits.not_deposited(conn, 10))
        assert [(one.volume_id, one.key_id) for one in missing] == [(row.id, old)]
        name = await here.db.write(lambda conn: deposits.note(conn, old, "barbican"))
        assert name == await here.db.write(lambda conn: deposits.note(conn, old, "barbican")) == f"brickyard-{old}"
        there = deposits.Deposit("barbican", f"brickyard-{old}", new)
        assert await here.db.write(lambda conn: here.keys.adopt(conn, row.id, old, there))
        assert not await here.db.write(lambda conn: here.keys.adopt(conn, row.id, old, there))
        assert await here.db.write(lambda conn: deposits.note(conn, new, "barbican")) is None
        assert await here.db.read(lambda conn: deposits.not_deposited(conn, 10)) == []
        row = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert (row.encryption_key_id, await key_of(here, row), await kept(here)) == (new, before, {new})
        assert opens(file_of(here, row), before)
        copy = await create(here, source_volid=row.id)
        assert opens(file_of(here, copy), await key_of(here, copy))
        assert await here.db.read(lambda conn: deposits.leaving(conn, 10, ["barbican"])) == []
        await here.db.write(lambda conn: here.keys.delete(conn, new))
        (gone,) = await here.db.read(lambda conn: deposits.leaving(conn, 10, ["barbican"]))
        assert (gone.name, gone.manager) == (name, "barbican")
        await here.db.write(lambda conn: deposits.left(conn, name))
        assert await here.db.read(lambda conn: deposits.leaving(conn, 10, ["barbican"])) == []


async def rekeyed(here: Site, row: Row[Any], *, master_key: bool = False) -> Row[Any]:
    def change(conn: Any) -> Any:
        fresh = volumes.get(conn, row.id)
        return accept_rekey(conn, REQUESTER, here.keys, fresh, master_key=master_key), None

    operation, _ = await here.engine.submit(change)
    assert await here.engine.wait(operation.id, 60) is not None
    return await here.db.read(lambda conn: volumes.get(conn, row.id))


@pytest.mark.parametrize("provider", ["luks", "luks2"])
async def test_a_rekeyed_volume_opens_with_its_new_key_alone(tmp_path: Path, provider: str) -> None:
    async with site(tmp_path) as here:
        row = await small(here, await create(here, volume_type_id=await encrypted_type(here, provider=provider)))
        file = file_of(here, row)
        content, old = file.read_bytes()[-SMALL:], await key_of(here, row)
        after = await rekeyed(here, row)
        assert after.status == "available"
        assert (after.device_bytes, after.usable_bytes) == (row.device_bytes, row.usable_bytes)
        assert opens(file, await key_of(here, after))
        assert not opens(file, old)
        assert file.read_bytes()[-SMALL:] == content, "the master key is the same"
        assert await kept(here) == {after.encryption_key_id} != {row.encryption_key_id}
        old = await key_of(here, after)
        last = await rekeyed(here, after, master_key=True)
        assert (last.status, last.volume_type_id) == ("available", row.volume_type_id)
        assert opens(file, await key_of(here, last))
        assert not opens(file, old)
        assert file.read_bytes()[-SMALL:] != content
        assert await kept(here) == {last.encryption_key_id}


async def test_what_has_no_key_or_is_needed_elsewhere_is_not_rekeyed(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        plain = await create(here, volume_type_id=await plain_type(here))
        with pytest.raises(NotEncrypted):
            await rekeyed(here, plain)
        row = await create(here, volume_type_id=await encrypted_type(here))
        wanted = NewSnapshot(volume_id=row.id, name="s")
        operation, _ = await here.engine.submit(lambda c: accept_snapshot(c, REQUESTER, here.keys, wanted))
        await here.engine.wait(operation.id, 60)
        for master_key in (False, True):
            with pytest.raises(TransitionRefused):
                await rekeyed(here, row, master_key=master_key)
        assert opens(file_of(here, row), await key_of(here, row))


async def test_a_rekey_that_an_agent_does_not_know_or_can_not_do_changes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        row = await small(here, await create(here, volume_type_id=await encrypted_type(here)))
        runner = here.hosts.wires["host-a"].runner
        known = runner._kinds
        runner._kinds = {name: kind for name, kind in known.items() if name != "volume.rekey"}
        assert (await rekeyed(here, row)).encryption_key_id == row.encryption_key_id
        runner._kinds = known
        # The file is another one than its key says.
        file, key = file_of(here, row), await key_of(here, row)
        moved = file.rename(file.with_name("elsewhere"))
        file.write_bytes(bytes(row.device_bytes))
        after = await rekeyed(here, row)
        assert (after.status, after.encryption_key_id) == ("error", row.encryption_key_id)
        assert "LUKS" in after.attention
        newest, *_ = await here.db.read(operations.listing)
        assert await kept(here) == {row.encryption_key_id, newest.args["key_id"]}, "nobody knew which one it is"
        # It is back, with its new key in it, and the undo is tried again.
        moved.rename(file)
        new = await here.db.read(lambda conn: here.keys.get(conn, newest.args["key_id"]))
        with file.open("r+b") as out:
            slots.rekey(out.fileno(), Secret("passphrase", key), Secret(new.type, new.value), iterations=1000)
        await here.engine.retry(newest.id)
        ended = await here.engine.wait(newest.id, 30)
        assert ended is not None
        assert ended.state == "failed"
        assert opens(file, key)
        assert await kept(here) == {row.encryption_key_id}


@pytest.mark.parametrize("killed", ["before", "both", "after"])
async def test_a_rekey_that_is_not_wanted_any_more_is_undone_from_every_state(tmp_path: Path, killed: str) -> None:
    """Cancelled while its host is silent, and taken up by another coordinator."""
    async with site(tmp_path) as here:
        row, wire = await small(here, await create(here, volume_type_id=await encrypted_type(here))), None
        file, old = file_of(here, row), await key_of(here, row)
        wire = here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        wire.arrived.clear()
        waiting = asyncio.create_task(rekeyed(here, row))
        await wire.arrived.wait()
        (operation,) = await here.db.read(lambda conn: operations.listing(conn, active=True))
        new = await here.db.read(lambda conn: here.keys.get(conn, operation.args["key_id"]))
        was = await here.db.read(lambda conn: here.keys.get(conn, operation.args["old_key_id"]))
        await here.engine.close(0.2)
        waiting.cancel()
        fd = os.open(file, os.O_RDWR)
        if killed == "both":
            slots.add(fd, Secret(was.type, was.value), Secret(new.type, new.value), iterations=1000)
        elif killed == "after":
            slots.rekey(fd, Secret(was.type, was.value), Secret(new.type, new.value), iterations=1000)
        os.close(fd)
        assert opens(file, passphrase(Secret(new.type, new.value))) is (killed != "before")
        assert await here.db.write(lambda conn: operations.request_cancel(conn, operation.id))
        wire.held = None
        other = new_engine(here.db, here.hosts, here.keys, "c2")
        await other.begin()
        done = await other.wait(operation.id, 60)
        await other.close(0.2)
        assert done is not None
        assert done.state == "cancelled"
        row = await here.db.read(lambda conn: volumes.get(conn, row.id))
        assert row.status == "available"
        assert opens(file, old)
        assert not opens(file, passphrase(Secret(new.type, new.value)))
        assert await kept(here) == {row.encryption_key_id}
