"""Keys of volumes at a Vault: deposited as castellan reads them, taken back; one that is sealed, denies, forgets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent.base.ids import new_id
from coordinator.keys.depository import Depository
from coordinator.keys.errors import ManagerAway, ManagerRefuses
from coordinator.keys.kek import Kek
from coordinator.keys.settings import KeysSection, VaultSettings
from coordinator.keys.store import KeyStore
from coordinator.keys.vault import Vault
from coordinator.state import deposits, issues, volumes
from coordinator.state.database import Database
from coordinator.state.schema import prepare
from coordinator.state.transition import enter, move
from tests.support.vault import ROLE, SECRET, vault
from tests.support.vault import Vault as Server


@pytest.fixture
def server() -> Iterator[Server]:
    with vault() as running:
        yield running


class Here:
    """A key store, and what brings its keys to the server."""

    def __init__(self, db: Database, manager: Vault) -> None:
        self.db, self.keys, self.manager = db, KeyStore(Kek(b"k" * 32)), manager
        self.depository = Depository(db, self.keys, {"vault": manager}, "vault", 30)

    def volume(self, value: bytes | None = None) -> tuple[str, str]:
        """An available encrypted volume and its key."""

        def make(conn: Any) -> tuple[str, str]:
            who = {"project_id": "p1", "user_id": "ann"}
            if value is None:
                key_id = self.keys.generate(conn, **who)
            else:
                key_id = self.keys.create(conn, **who, type="passphrase", value=value)
            values = {"id": new_id(), "size": 1, "availability_zone": "nova", "bootable": False, "multiattach": False}
            row = enter(conn, "volume", "create", **who, **values, encryption_key_id=key_id)
            move(conn, "volume", row.id, "created")
            return row.id, key_id

        return self.db.write_now(make)

    def value(self, key_id: str) -> bytes:
        return self.db.read_now(lambda conn: self.keys.get(conn, key_id)).value


def settings(tmp_path: Path, server: Server, **more: Any) -> VaultSettings:
    file = tmp_path / "secret-id"
    if not file.exists():
        file.write_text(SECRET + "\n")
        file.chmod(0o400)
    given = {"address": server.url, "role_id": ROLE, "secret_id_file": file, "timeout_s": 20, **more}
    return VaultSettings.model_validate(given)


@asynccontextmanager
async def here_at(tmp_path: Path, server: Server, **more: Any) -> AsyncIterator[Here]:
    db = Database.sqlite(tmp_path / "state.db")
    db.write_now(prepare)
    here = Here(db, Vault(settings(tmp_path, server, **more)))
    yield here
    await here.depository.close()
    db.close()


async def test_a_key_is_deposited_under_its_id_and_taken_back(tmp_path: Path, server: Server) -> None:
    async with here_at(tmp_path, server, path="volumes/keys", namespace="team") as here:
        volume, key = here.volume()
        _, phrase = here.volume(b"a passphrase")
        assert await here.depository.work() == 2
        assert await here.depository.work() == 0
        told = server.value(f"volumes/keys/{key}")
        assert told is not None
        assert (told["type"], told["value"], told["algorithm"], told["bit_length"]) == (
            "symmetric", here.value(key).hex(), "aes", 256)  # fmt: skip
        assert (server.value(f"volumes/keys/{phrase}") or {})["value"] == b"a passphrase".hex()
        custom = {"service": "brickyard", "resource_type": "volume", "resource_id": volume}
        assert server.entries[f"volumes/keys/{key}"].custom == custom
        assert here.db.read_now(lambda conn: volumes.get(conn, volume)).encryption_key_id == key
        assert await here.depository.for_use(volume, "bob") == key
        assert {headers["x-vault-namespace"] for headers in server.asked} == {"team"}
        assert sum(call.endswith("approle/login") for call in server.calls) == 1, "one log-in does for all"
        here.db.write_now(lambda conn: here.keys.delete(conn, key))
        assert await here.depository.work() == 1
        assert set(server.entries) == {f"volumes/keys/{phrase}"}
        assert await here.depository.work() == 0


async def test_what_a_kill_or_another_hand_left_is_made_whole(tmp_path: Path, server: Server) -> None:
    async with here_at(tmp_path, server) as here:
        _, key = here.volume()
        name = here.db.write_now(lambda conn: deposits.note(conn, key, "vault"))
        assert name is not None
        secret = here.db.read_now(lambda conn: here.keys.get(conn, key))
        assert await here.manager.store(name, secret) == key
        assert await here.manager.store(name, secret) == key, "another coordinator was first"
        assert await here.depository.work() == 1
        assert len(server.entries[key].versions) == 1
        # `vault kv delete` hides the newest version alone.
        _, other = here.volume()
        await here.manager.store(f"brickyard-{other}", here.db.read_now(lambda conn: here.keys.get(conn, other)))
        server.entries[other].versions[-1].deleted = "2026-01-02T00:00:00Z"
        await here.depository.work()
        assert (server.value(other) or {})["value"] == here.value(other).hex()
        # A volume that went away before its key was told.
        here.db.write_now(lambda conn: here.keys.delete(conn, other))
        await here.manager.remove(f"brickyard-{other}")
        assert await here.depository.work() == 1


async def test_a_token_is_renewed_in_time_and_made_anew_when_it_is_not_taken(tmp_path: Path, server: Server) -> None:
    server.life_s = 0.3
    async with here_at(tmp_path, server) as here:
        assert await here.manager.find("brickyard-x") == []
        first = set(server.tokens)
        (own,) = server.tokens
        here.manager._own = here.manager._own and type(here.manager._own)(own, True, 0.0, float("inf"))
        server.tokens[own] += 60
        assert await here.manager.find("brickyard-x") == []
        assert server.calls[-2:] == ["POST auth/token/renew-self", "GET secret/data/x"]
        assert set(server.tokens) == first
        server.tokens.clear()  # revoked
        assert await here.manager.find("brickyard-x") == []
        assert server.calls[-2:] == ["POST auth/approle/login", "GET secret/data/x"]
        # One that can not be renewed any more is made anew before it is refused.
        server.renewable = False
        (own,) = server.tokens
        here.manager._own = here.manager._own and type(here.manager._own)(own, True, 0.0, float("inf"))
        assert await here.manager.find("brickyard-x") == []
        assert len(server.tokens) == 2


async def test_a_vault_that_is_sealed_or_away_holds_up_nobody(tmp_path: Path, server: Server) -> None:
    async with here_at(tmp_path, server) as here:
        volume, key = here.volume()
        server.sealed = True
        with pytest.raises(ManagerAway, match="sealed"):
            await here.depository.work()
        with pytest.raises(ManagerAway):
            await here.depository.for_use(volume, "ann")
        assert here.value(key), "hosts are served from here all the same"
        server.sealed = False
        assert await here.depository.work() == 1
    async with here_at(tmp_path / "..", server, address="http://127.0.0.1:1") as here:
        with pytest.raises(ManagerAway, match=r"127\.0\.0\.1:1"):
            await here.manager.find("brickyard-x")


async def test_what_the_policy_or_the_log_in_refuses_is_told_with_what_to_do(tmp_path: Path, server: Server) -> None:
    async with here_at(tmp_path, server) as here:
        _, key = here.volume()
        server.denied.add(("POST", "secret/data/"))
        with pytest.raises(ManagerRefuses, match="403") as refused:
            await here.depository.work()
        assert "secret/data/*" in str(refused.value.to_body()["hint"])
        assert here.value(key).hex() not in str(refused.value.to_body())
        await here.depository._tell(refused.value)
        (issue,) = here.db.read_now(issues.listing)
        assert issue.code == "keys.manager-away"
    wrong = tmp_path / "wrong"
    wrong.write_text("nonsense")
    wrong.chmod(0o400)
    manager = Vault(settings(tmp_path, server, secret_id_file=wrong))
    with pytest.raises(ManagerRefuses, match="log-in") as refused:
        await manager.find("brickyard-x")
    assert "nonsense" not in str(refused.value.to_body())
    await manager.close()


def test_an_address_is_an_address_and_one_manager_gets_the_keys(tmp_path: Path, server: Server) -> None:
    for bad in ({"address": "vault.example"}, {"address": "https://u:p@vault"}, {"mount": "a b"}, {"path": "../x"}):
        with pytest.raises(ValidationError):
            settings(tmp_path, server, **bad)
    assert settings(tmp_path, server, address="https://vault:8200/", path="/a/b/", mount="kv/").path == "a/b"
    both = {"barbican": {}, "vault": {"address": "http://v", "role_id": "r"}}
    with pytest.raises(ValidationError, match="one of them must be named"):
        KeysSection.model_validate(both)
    with pytest.raises(ValidationError, match="needs the table"):
        KeysSection.model_validate({"barbican": {}, "manager": "vault"})
    for unknown in ({"manager": "castellan.common.conf_key_manager"}, {"fixed_key": "00" * 32}, {"keymgr": {}}):
        with pytest.raises(ValidationError):
            KeysSection.model_validate(unknown)
    for manager in ("vault", "barbican", "local"):
        assert KeysSection.model_validate({**both, "manager": manager}).target == manager
    assert (KeysSection().target, KeysSection.model_validate({"barbican": {}}).target) == ("local", "barbican")


_READ = """
import sys
from oslo_config import cfg
from oslo_context import context
from castellan import key_manager
conf = cfg.ConfigOpts()
conf([], default_config_files=[sys.argv[1]])
found = key_manager.API(conf).get(context.RequestContext(), sys.argv[2])
print(type(found).__name__, found.get_encoded().hex())
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_castellan_reads_what_was_deposited(tmp_path: Path, server: Server) -> None:
    """The library that compute services read keys with, from its package."""
    home = tmp_path / "castellan"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
    install = [str(home / "bin" / "pip"), "install", "-q", "--no-input", "--disable-pip-version-check", "castellan"]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=500)
    if done.returncode:
        pytest.skip(f"castellan can not be installed: {done.stderr.strip().splitlines()[-1:]}")
    config = tmp_path / "castellan.conf"
    config.write_text(
        f"[key_manager]\nbackend = vault\n[vault]\nvault_url = {server.url}\napprole_role_id = {ROLE}\n"
        f"approle_secret_id = {SECRET}\nkv_path = keys\n"
    )
    async with here_at(tmp_path, server, path="keys") as here:
        made = [here.volume()[1], here.volume(b"a passphrase")[1]]
        assert await here.depository.work() == 2
        for key, kind in zip(made, ("SymmetricKey", "Passphrase"), strict=True):
            read = subprocess.run(
                [str(home / "bin" / "python"), "-c", _READ, str(config), key], capture_output=True, text=True,
                check=False, timeout=120, env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )  # fmt: skip
            assert read.returncode == 0, read.stderr
            assert read.stdout.split() == [kind, here.value(key).hex()]
    shutil.rmtree(home)
