"""Who owns which key while volumes are copied: the key store and the headers on the host's disk, beside each other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select

from agent.luks.model import Secret, passphrase
from coordinator.operations.create_snapshot import NewSnapshot, accept_snapshot
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.state import types, volumes
from coordinator.state.tables.keys import secrets
from tests.support.luks import opens
from tests.unit.coordinator.operations.support import REQUESTER, Site, site

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")


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
    assert await here.engine.wait(operation.id, 30) is not None
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
        await here.engine.wait(operation.id, 30)
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
