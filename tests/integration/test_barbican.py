"""Keys of volumes at a real Barbican, which asks a real Keystone: deposited, readable by who may, taken back."""

from __future__ import annotations

import base64
import urllib.error
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agent.base.ids import new_id
from coordinator.identity.service_user import ServiceUser
from coordinator.identity.settings import KeystoneSettings
from coordinator.images.certificates import CertificateManager, Place
from coordinator.images.errors import CertificateAway
from coordinator.keys.barbican import Barbican
from coordinator.keys.depository import Depository, Manager
from coordinator.keys.errors import ManagerAway, NotDeposited
from coordinator.keys.kek import Kek
from coordinator.keys.settings import BarbicanSettings, VaultSettings
from coordinator.keys.store import KeyStore
from coordinator.keys.vault import Vault
from coordinator.operations.certificates import read
from coordinator.state import deposits, volumes
from coordinator.state.database import Database
from coordinator.state.schema import prepare
from coordinator.state.transition import enter, move
from tests.support.barbican import Barbican as Server
from tests.support.barbican import barbican
from tests.support.keystone import Keystone, keystone
from tests.support.signing import holder
from tests.support.vault import ROLE, SECRET, vault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PASSWORD = "pass word"


@dataclass
class Cloud:
    """`users`: name to id; all have PASSWORD, in the project `one` but for the service."""

    stone: Keystone
    server: Server
    users: dict[str, str]

    def token(self, name: str) -> str:
        return self.stone.token(name, PASSWORD, project="service" if name == "brickyard" else "one")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with keystone(folder / "keystone") as stone:
        service, one = stone.project("service"), stone.project("one")
        users = {
            "brickyard": stone.user("brickyard", PASSWORD, service, "service", "admin", "creator", "member"),
            "ann": stone.user("ann", PASSWORD, one, "member"),
            "bob": stone.user("bob", PASSWORD, one, "member"),
        }
        with barbican(folder / "barbican", stone.url, PASSWORD) as server:
            yield Cloud(stone, server, users)


@dataclass
class Here:
    """A key store, and what brings its keys to the server."""

    db: Database
    keys: KeyStore
    depository: Depository
    manager: Barbican

    def volume(self, owner: str, value: bytes | None = None) -> tuple[str, str]:
        """An available encrypted volume and its key."""

        def make(conn: Any) -> tuple[str, str]:
            who = {"project_id": "p1", "user_id": owner}
            if value is None:
                key_id = self.keys.generate(conn, **who)  # type: ignore[arg-type]
            else:
                key_id = self.keys.create(conn, **who, type="passphrase", value=value)
            values = {"id": new_id(), "size": 1, "availability_zone": "nova", "bootable": False, "multiattach": False}
            row = enter(conn, "volume", "create", **who, **values, encryption_key_id=key_id)
            move(conn, "volume", row.id, "created")
            return row.id, key_id

        return self.db.write_now(make)

    def key(self, volume_id: str) -> str:
        return str(self.db.read_now(lambda conn: volumes.get(conn, volume_id)).encryption_key_id)


@asynccontextmanager
async def here_at(tmp_path: Path, cloud: Cloud, **more: Any) -> AsyncIterator[Here]:
    db = Database.sqlite(tmp_path / "state.db")
    db.write_now(prepare)
    keys = KeyStore(Kek(b"k" * 32))
    user = ServiceUser(KeystoneSettings(auth_url=cloud.stone.url, password=SecretStr(PASSWORD), timeout_s=120))
    manager = Barbican(BarbicanSettings(**{"endpoint": cloud.server.url, "timeout_s": 120, **more}), user)
    depository = Depository(db, keys, {"barbican": manager}, "barbican", 30)
    yield Here(db, keys, depository, manager)
    await depository.close()
    db.close()


async def test_a_key_is_deposited_readable_by_its_users_and_taken_back(tmp_path: Path, cloud: Cloud) -> None:
    async with here_at(tmp_path, cloud) as here:
        ann, bob = cloud.token("ann"), cloud.token("bob")
        volume, old = here.volume(cloud.users["ann"])
        phrase, _ = here.volume(cloud.users["ann"], b"a passphrase")
        values = {one: here.db.read_now(lambda conn, one=one: here.keys.get(conn, here.key(one))).value  # type: ignore[misc]
                  for one in (volume, phrase)}  # fmt: skip
        assert await here.depository.work() == 2
        assert await here.depository.work() == 0
        key = here.key(volume)
        assert key != old
        for one in (volume, phrase):
            assert here.db.read_now(lambda conn, one=one: here.keys.get(conn, here.key(one))).value == values[one]  # type: ignore[misc]
            assert cloud.server.payload(here.key(one), token=ann) == values[one]
        meta = cloud.server.call("GET", f"/secrets/{key}", token=ann)
        assert (meta["secret_type"], meta["algorithm"], meta["bit_length"]) == ("symmetric", "aes", 256)
        assert cloud.server.call("GET", f"/secrets/{here.key(phrase)}", token=ann)["secret_type"] == "passphrase"
        version = {"OpenStack-API-Version": "key-manager 1.1"}
        used = cloud.server.call("GET", f"/secrets/{key}/consumers", token=cloud.token("brickyard"), **version)
        said = [{name: one[name] for name in ("service", "resource_type", "resource_id")} for one in used["consumers"]]
        assert said == [{"service": "brickyard", "resource_type": "volume", "resource_id": volume}]
        # Another user of the project may read it once it was asked for through us.
        with pytest.raises(urllib.error.HTTPError, match="403"):
            cloud.server.payload(key, token=bob)
        assert await here.depository.for_use(volume, cloud.users["bob"]) == key
        assert cloud.server.payload(key, token=bob) == cloud.server.payload(key, token=ann) == values[volume]
        here.db.write_now(lambda conn: here.keys.delete(conn, key))
        assert await here.depository.work() == 1
        with pytest.raises(urllib.error.HTTPError, match="404"):
            cloud.server.payload(key, token=ann)
        assert await here.manager.find(f"brickyard-{old}") == []


async def test_what_a_kill_left_is_found_by_its_name(tmp_path: Path, cloud: Cloud) -> None:
    async with here_at(tmp_path, cloud) as here:
        volume, old = here.volume(cloud.users["ann"])
        name = here.db.write_now(lambda conn: deposits.note(conn, old, "barbican"))
        assert name is not None
        left = await here.manager.store(name, here.db.read_now(lambda conn: here.keys.get(conn, old)))
        await here.depository.work()
        assert here.key(volume) == left
        # One whose volume went away before it was told.
        _, gone = here.volume(cloud.users["ann"])
        name = here.db.write_now(lambda conn: deposits.note(conn, gone, "barbican"))
        assert name is not None
        await here.manager.store(name, here.db.read_now(lambda conn: here.keys.get(conn, gone)))
        here.db.write_now(lambda conn: here.keys.delete(conn, gone))
        await here.depository.work()
        assert await here.manager.find(name) == []


async def test_a_volume_that_is_worked_on_keeps_its_key_until_it_is_not(tmp_path: Path, cloud: Cloud) -> None:
    async with here_at(tmp_path, cloud) as here:
        volume, old = here.volume(cloud.users["ann"])
        here.db.write_now(lambda conn: move(conn, "volume", volume, "recrypt"))
        with pytest.raises(NotDeposited):
            await here.depository.for_use(volume, cloud.users["ann"])
        assert here.key(volume) == old
        here.db.write_now(lambda conn: move(conn, "volume", volume, "recrypted"))
        kept = await here.depository.for_use(volume, cloud.users["ann"])
        assert kept == here.key(volume) != old
        assert await here.manager.find(f"brickyard-{old}") == [kept]


async def test_keys_move_between_a_barbican_and_a_vault_and_home(tmp_path: Path, cloud: Cloud) -> None:
    with vault() as server:
        async with here_at(tmp_path, cloud) as here:
            file = tmp_path / "secret-id"
            file.write_text(SECRET)
            file.chmod(0o400)
            other = Vault(VaultSettings(address=server.url, role_id=ROLE, secret_id_file=file, timeout_s=120))
            managers: dict[str, Manager] = {"barbican": here.manager, "vault": other}
            ann = cloud.token("ann")
            made = [here.volume(cloud.users["ann"])[0], here.volume(cloud.users["ann"], b"a passphrase")[0]]

            def value(one: str) -> bytes:
                return here.db.read_now(lambda conn: here.keys.get(conn, here.key(one))).value

            async def moved(place: str) -> None:
                here.db.write_now(lambda conn: deposits.move_all(conn, place))
                await Depository(here.db, here.keys, managers, place, 30).work()
                assert here.db.read_now(deposits.places) == {place: 2}
                assert here.db.read_now(deposits.removals) == {}
                assert {one: value(one) for one in made} == values
                for one in made if place == "barbican" else ():
                    assert cloud.server.payload(here.key(one), token=ann) == values[one]
                told = {name: bytes.fromhex((server.value(name) or {})["value"]) for name in server.entries}
                assert told == ({here.key(one): values[one] for one in made} if place == "vault" else {})

            values = {one: value(one) for one in made}
            await here.depository.work()
            first = [here.key(one) for one in made]
            for place in ("vault", "barbican", "vault", "local", "barbican", "local"):
                await moved(place)
            for key in first:
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    cloud.server.payload(key, token=ann)
            listed = cloud.server.call("GET", "/secrets?limit=100", token=cloud.token("brickyard"))["secrets"]
            assert not [one["name"] for one in listed if any(one["secret_ref"].endswith(key) for key in first)]
            await other.close()


async def test_a_manager_that_is_away_is_told_later(tmp_path: Path, cloud: Cloud) -> None:
    async with here_at(tmp_path, cloud, endpoint="http://127.0.0.1:1", timeout_s=2) as here:
        volume, old = here.volume(cloud.users["ann"])
        with pytest.raises(ManagerAway):
            await here.depository.work()
        assert here.key(volume) == old


async def test_certificates_are_read_with_their_readers_own_rights(cloud: Cloud) -> None:
    user = ServiceUser(KeystoneSettings(auth_url=cloud.stone.url, password=SecretStr(PASSWORD), timeout_s=120))
    manager = CertificateManager(Place(cloud.server.url, "internal", None, 120), user)
    one, bob = holder("signer"), cloud.token("bob")

    def stored(kind: str, data: bytes, content: str, token: str) -> str:
        body = {"secret_type": kind, "payload_content_type": content}
        if content == "text/plain":
            body["payload"] = data.decode()
        else:
            body |= {"payload": base64.b64encode(data).decode(), "payload_content_encoding": "base64"}
        ref: str = cloud.server.call("POST", "/secrets", body, token=token)["secret_ref"]
        return ref.rpartition("/")[2]

    try:
        for data, content in ((one.pem, "application/octet-stream"), (one.der, "application/octet-stream"),
                              (one.pem, "text/plain")):  # fmt: skip
            found = await manager.certificate(stored("certificate", data, content, bob), bob)
            assert read(found or b"") == one.certificate
        hidden = stored("certificate", one.der, "application/octet-stream", cloud.token("brickyard"))
        assert await manager.certificate(hidden, bob) is None
        assert await manager.certificate(hidden, None) is not None, "the site's own"
        other = stored("opaque", one.der, "application/octet-stream", bob)
        assert await manager.certificate(other, bob) is None
        assert await manager.certificate("00000000-0000-4000-8000-00000000beef", bob) is None
        assert await manager.certificate("../secrets", bob) is None
        assert await manager.certificate(hidden, "no token") is None
    finally:
        await manager.close()
    user = ServiceUser(KeystoneSettings(auth_url=cloud.stone.url, password=SecretStr(PASSWORD), timeout_s=120))
    away = CertificateManager(Place("http://127.0.0.1:1", "internal", None, 5), user)
    with pytest.raises(CertificateAway):
        await away.certificate(hidden, bob)
    await away.close()
