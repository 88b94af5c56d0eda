"""What the coordinators of a site share: one CA, and token keys that sign only when all know them."""

from __future__ import annotations

from pathlib import Path

from coordinator.enrolment.ca import Authority
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.server.roots import KNOWN_TO_ALL_S, SharedCaStore, SharedTokenKeys
from coordinator.state.database import Database
from coordinator.state.schema import prepare


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_new_key_signs_only_when_the_other_has_read_it(tmp_path: Path) -> None:
    db, keys, clock = Database.sqlite(tmp_path / "db"), KeyStore(Kek(b"k" * 32)), Clock()
    db.write_now(prepare)
    one, other = (SharedTokenKeys(db, keys, tmp_path, 5000, clock) for _ in range(2))
    old = one.signing
    assert other.signing == old
    clock.now += 5001
    await one.refresh()
    assert one.signing == old, "the other does not know the new one yet"
    await other.refresh()
    clock.now += KNOWN_TO_ALL_S
    fresh = one.signing
    assert fresh != old
    assert other.find(fresh.id) == fresh
    assert other.find(old.id) == old, "tokens that the old one signed are good until they end"
    for _ in range(3):
        clock.now += 5001
        await one.refresh()
    assert one.find(old.id) is None
    db.close()


def test_one_authority_however_many_open_it(tmp_path: Path) -> None:
    db, keys = Database.sqlite(tmp_path / "db"), KeyStore(Kek(b"k" * 32))
    db.write_now(prepare)
    made = [Authority.open(SharedCaStore(db, keys, tmp_path / name)) for name in ("a", "b")]
    assert made[0].fingerprint == made[1].fingerprint
    former = Kek(b"k" * 32)
    db.write_now(lambda conn: KeyStore(former).rotate(conn, Kek(b"n" * 32)))
    again = Authority.open(SharedCaStore(db, KeyStore(Kek(b"n" * 32)), tmp_path / "c"))
    assert again.fingerprint == made[0].fingerprint, "a new key-encryption key seals it too"
    db.close()
