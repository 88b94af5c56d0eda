"""Keys that move between two key managers and home again, whatever dies, refuses or is changed in between.

Two servers that speak Vault's protocol stand for the two managers here; the real Barbican is one of the two in
`tests/integration/test_barbican.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from coordinator.keys.depository import Depository
from coordinator.keys.errors import ManagerAway, ManagerRefuses, NotTheSame
from coordinator.keys.kek import Kek
from coordinator.keys.settings import VaultSettings
from coordinator.keys.store import KeyStore
from coordinator.keys.vault import Vault
from coordinator.state import deposits, volumes
from coordinator.state.database import Database
from coordinator.state.schema import prepare
from coordinator.state.transition import enter, move
from tests.support.vault import ROLE, SECRET, vault
from tests.support.vault import Vault as Server

Servers = dict[str, Server]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with vault() as one, vault() as other:
        yield {"barbican": one, "vault": other}


class Killed(BaseException):
    """A coordinator that was killed: nothing catches it."""


class Mortal:
    """A manager whose caller dies at the call of that number, before or after it takes effect."""

    def __init__(self, manager: Vault, dies: list[int], *, after: bool) -> None:
        self._manager, self._dies, self._after = manager, dies, after

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            self._dies[0] -= 1
            if self._dies[0] == 0 and not self._after:
                raise Killed
            answer = await getattr(self._manager, name)(*args)
            if self._dies[0] == 0:
                raise Killed
            return answer

        return call


class Here:
    """A key store; `at` is what brings its keys to one of the servers, as a coordinator started anew does."""

    def __init__(self, db: Database, tmp_path: Path, servers: Servers) -> None:
        self.db, self.keys, self.servers = db, KeyStore(Kek(b"k" * 32)), servers
        file = tmp_path / "secret-id"
        file.write_text(SECRET)
        file.chmod(0o400)
        self.managers = {
            name: Vault(VaultSettings(address=server.url, role_id=ROLE, secret_id_file=file, timeout_s=60))
            for name, server in servers.items()
        }

    def at(self, target: str, *, dies: int = 0, after: bool = False) -> Depository:
        left = [dies]
        managers = {name: Mortal(one, left, after=after) for name, one in self.managers.items()}
        return Depository(self.db, self.keys, managers, target, 30)

    def volume(self) -> str:
        def make(conn: Any) -> str:
            who = {"project_id": "p1", "user_id": "ann"}
            values = {"id": new_id(), "size": 1, "availability_zone": "nova", "bootable": False, "multiattach": False}
            row = enter(conn, "volume", "create", **who, **values, encryption_key_id=self.keys.generate(conn, **who))
            move(conn, "volume", row.id, "created")
            return str(row.id)

        return self.db.write_now(make)

    def key(self, volume_id: str) -> str:
        return str(self.db.read_now(lambda conn: volumes.get(conn, volume_id)).encryption_key_id)

    def value(self, volume_id: str) -> str:
        key = self.key(volume_id)
        return self.db.read_now(lambda conn: self.keys.get(conn, key)).value.hex()

    def asked(self, target: str) -> None:
        self.db.write_now(lambda conn: deposits.move_all(conn, target))

    def usable(self, volume_id: str, value: str) -> bool:
        """Whether a manager has the secret that the volume names, with the value that it had."""
        there = [server.value(self.key(volume_id)) for server in self.servers.values()]
        return [one["value"] for one in there if one is not None] == [value] and self.value(volume_id) == value


@asynccontextmanager
async def here_at(tmp_path: Path, servers: Servers) -> AsyncIterator[Here]:
    db = Database.sqlite(tmp_path / "state.db")
    db.write_now(prepare)
    here = Here(db, tmp_path, servers)
    yield here
    for manager in here.managers.values():
        await manager.close()
    db.close()


def only(here: Here, place: str, volumes: list[str]) -> None:
    """Each of these volumes has one secret, there; nothing else is anywhere."""
    for name, server in here.servers.items():
        assert set(server.entries) == ({here.key(one) for one in volumes} if name == place else set())
    assert here.db.read_now(deposits.places) == {place: len(volumes)}
    assert here.db.read_now(deposits.removals) == {}


async def test_keys_go_from_one_manager_to_the_other_and_home_and_back(tmp_path: Path, servers: Servers) -> None:
    async with here_at(tmp_path, servers) as here:
        made = [here.volume() for _ in range(3)]
        values = {one: here.value(one) for one in made}
        assert await here.at("barbican").work() == 3
        only(here, "barbican", made)
        # Nothing moves by itself where another manager is to get the keys: an operator says when.
        assert await here.at("vault").work() == 0
        for place in ("vault", "barbican", "vault"):
            here.asked(place)
            here.asked(place)
            assert await here.at(place).work() == 6, "three to move, three to take back"
            assert await here.at(place).work() == 0
            only(here, place, made)
            assert all(here.usable(one, values[one]) for one in made)
        here.asked("local")
        before = [here.key(one) for one in made]
        assert await here.at("local").work() == 6
        only(here, "local", made)
        assert [here.key(one) for one in made] == before
        assert {one: here.value(one) for one in made} == values
        assert await here.at("local").for_use(made[0], "bob") == before[0]
        # Once more there, under names that no removal knows.
        assert await here.at("vault").work() == 3
        only(here, "vault", made)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("turned", [False, True])
async def test_killed_at_any_call_each_volume_ends_with_one_secret(
    tmp_path: Path, servers: Servers, after: bool, turned: bool
) -> None:
    async with here_at(tmp_path, servers) as here:
        volume = here.volume()
        value, places = here.value(volume), ["barbican", "vault"]
        await here.at("barbican").work()
        for number in range(1, 30):
            target = places[number % 2]
            here.asked(target)
            try:
                await here.at(target, dies=number, after=after).work()
            except Killed:
                assert here.usable(volume, value)
            else:
                break
            if turned:  # the operator thinks better of it
                here.asked(places[(number + 1) % 2])
                await here.at(target).work()
                only(here, places[(number + 1) % 2], [volume])
                here.asked(target)
            await here.at(target).work()
            assert here.usable(volume, value)
            only(here, target, [volume])
        assert 6 < number < 29, "it died at each call"


async def test_what_does_not_read_back_the_same_stays_where_it_was(tmp_path: Path, servers: Servers) -> None:
    async with here_at(tmp_path, servers) as here:
        one, two = sorted((here.volume(), here.volume()), key=here.key)
        await here.at("barbican").work()
        old, value = here.key(one), here.value(one)
        here.asked("vault")
        name = here.db.write_now(lambda conn: deposits.note(conn, old, "vault"))
        assert name is not None
        await here.managers["vault"].store(name, here.db.read_now(lambda conn: here.keys.get(conn, here.key(two))))
        with pytest.raises(NotTheSame):
            await here.at("vault").work()
        assert here.key(one) == old
        assert here.usable(one, value)
        assert here.db.read_now(deposits.places) == {"barbican": 1, "vault": 1}, "the other one went all the same"
        await here.managers["vault"].remove(name)
        assert await here.at("vault").work() == 2
        only(here, "vault", [one, two])


async def test_a_volume_that_is_worked_on_or_goes_away_meanwhile(tmp_path: Path, servers: Servers) -> None:
    async with here_at(tmp_path, servers) as here:
        busy, gone = here.volume(), here.volume()
        await here.at("barbican").work()
        old = here.key(busy)
        here.asked("vault")
        here.db.write_now(lambda conn: move(conn, "volume", busy, "recrypt"))
        left = here.db.write_now(lambda conn: deposits.note(conn, here.key(gone), "vault"))
        assert left is not None
        await here.managers["vault"].store(left, here.db.read_now(lambda conn: here.keys.get(conn, here.key(gone))))
        here.db.write_now(lambda conn: here.keys.delete(conn, here.key(gone)))
        assert await here.at("vault").work() == 2, "from the old place, and from the one it was on its way to"
        assert set(servers["barbican"].entries) == {old}
        assert not servers["vault"].entries
        assert await here.at("vault").for_use(busy, "bob") == old, "still usable where it is"
        here.db.write_now(lambda conn: move(conn, "volume", busy, "recrypted"))
        assert await here.at("vault").for_use(busy, "bob") == here.key(busy) != old
        assert set(servers["vault"].entries) == {here.key(busy)}


async def test_a_manager_that_is_away_or_denies_is_gone_on_with_later(tmp_path: Path, servers: Servers) -> None:
    async with here_at(tmp_path, servers) as here:
        volume = here.volume()
        value = here.value(volume)
        await here.at("barbican").work()
        here.asked("vault")
        servers["vault"].sealed = True
        with pytest.raises(ManagerAway):
            await here.at("vault").work()
        assert here.usable(volume, value)
        servers["vault"].sealed = False
        servers["barbican"].denied.add(("DELETE", "secret/"))
        with pytest.raises(ManagerRefuses):
            await here.at("vault").work()
        assert (here.db.read_now(deposits.places), here.db.read_now(deposits.removals)) == (
            {"vault": 1},
            {"barbican": 1},
        )
        servers["barbican"].denied.clear()
        await here.at("vault").work()
        only(here, "vault", [volume])


async def test_rows_of_the_release_before_say_where_they_lie_by_their_names(tmp_path: Path, servers: Servers) -> None:
    async with here_at(tmp_path, servers) as here:
        in_vault, in_barbican = here.volume(), here.volume()
        await here.at("vault").work()
        here.db.write_now(lambda conn: conn.exec_driver_sql("UPDATE secrets SET manager = NULL"))
        key, other = here.key(in_barbican), new_id()
        here.db.write_now(lambda conn: conn.exec_driver_sql("UPDATE secrets SET external = false WHERE id = %r" % key))  # noqa: UP031
        there = deposits.Deposit("barbican", f"brickyard-{key}", other)
        assert here.db.write_now(lambda conn: here.keys.adopt(conn, in_barbican, key, there))
        here.db.write_now(lambda conn: conn.exec_driver_sql("UPDATE secrets SET manager = NULL"))
        found = {row.volume_id: row.manager for row in (
            here.db.read_now(lambda conn, one=one: deposits.of_volume(conn, one))  # type: ignore[misc]
            for one in (in_vault, in_barbican)) if row is not None}  # fmt: skip
        assert found == {in_vault: "vault", in_barbican: "barbican"}


@pytest.mark.parametrize("target", ["local", "barbican"])
async def test_a_first_deposit_that_a_kill_cut_short_is_taken_back(
    tmp_path: Path, servers: Servers, target: str
) -> None:
    async with here_at(tmp_path, servers) as here:
        volume = here.volume()
        key = here.key(volume)
        with pytest.raises(Killed):
            await here.at("vault", dies=3).work()
        assert set(servers["vault"].entries) == {key}
        here.asked(target)
        here.asked(target)
        await here.at(target).work()
        only(here, target, [volume])
        assert (here.key(volume) == key) == (target == "local")


async def test_two_coordinators_at_once_leave_one_secret(tmp_path: Path, servers: Servers) -> None:
    import asyncio

    async with here_at(tmp_path, servers) as here:
        made = [here.volume() for _ in range(5)]
        await asyncio.gather(here.at("barbican").work(), here.at("barbican").work())
        only(here, "barbican", made)
        here.asked("vault")
        await asyncio.gather(*(here.at("vault").work() for _ in range(3)))
        await here.at("vault").work()
        only(here, "vault", made)
