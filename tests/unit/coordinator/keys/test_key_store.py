"""The sealed key store: what it gives back, whom it refuses, and that nothing of a secret lies in the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from agent.base.config import SecretUnreadable
from agent.base.ids import new_id
from coordinator.keys import kek as keks
from coordinator.keys.errors import (
    KeyFileInvalid,
    SecretDamaged,
    SecretInUse,
    SecretInvalid,
    SecretNotFound,
    WrongKeyEncryptionKey,
)
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.state import transition
from coordinator.state.database import Database
from coordinator.state.tables import metadata, types  # noqa: F401 - volumes refer to it
from coordinator.state.tables.keys import secrets
from tests.support import databases

CANARY = b"canary-5f1c0e-passphrase"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = databases.empty(tmp_path / "state.db")
    metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture
def store(db: Database) -> KeyStore:
    made = KeyStore(Kek.generate())
    db.write_now(made.check)
    return made


def _create(db: Database, store: KeyStore, type: str = "passphrase", project: str = "p1") -> str:
    return db.write_now(lambda conn: store.create(conn, project_id=project, user_id="u1", type=type, value=CANARY))


def test_a_secret_comes_back_as_it_was_put(db: Database, store: KeyStore) -> None:
    key_id = _create(db, store)
    secret = db.read_now(lambda conn: store.get(conn, key_id))
    assert (secret.value, secret.type, secret.project_id) == (CANARY, "passphrase", "p1")
    assert CANARY.decode() not in repr(secret)
    assert repr(CANARY) not in repr(secret)


def test_a_clone_keeps_type_and_value_under_another_id(db: Database, store: KeyStore) -> None:
    for kind in ("passphrase", "symmetric", "opaque"):
        key_id = _create(db, store, kind)
        copy = db.write_now(lambda conn, key_id=key_id: store.clone(conn, key_id, project_id="p2", user_id="u2"))
        assert copy != key_id
        db.write_now(lambda conn, key_id=key_id: store.delete(conn, key_id))
        found = db.read_now(lambda conn, copy=copy: store.get(conn, copy))
        assert (found.type, found.value, found.project_id) == (kind, CANARY, "p2")


def test_generated_keys_have_the_asked_length_and_differ(db: Database, store: KeyStore) -> None:
    made = [db.write_now(lambda conn: store.generate(conn, project_id="p", user_id="u", bits=512)) for _ in range(2)]
    values = [db.read_now(lambda conn, key=key: store.get(conn, key)).value for key in made]
    assert [len(value) for value in values] == [64, 64]
    assert values[0] != values[1]
    with pytest.raises(SecretInvalid):
        db.write_now(lambda conn: store.generate(conn, project_id="p", user_id="u", bits=8))


def test_deleting_twice_is_fine_and_reading_then_is_not_found(db: Database, store: KeyStore) -> None:
    key_id = _create(db, store)
    for _ in range(2):
        db.write_now(lambda conn: store.delete(conn, key_id))
    with pytest.raises(SecretNotFound):
        db.read_now(lambda conn: store.get(conn, key_id))


def test_another_project_does_not_find_it(db: Database, store: KeyStore) -> None:
    key_id = _create(db, store)
    for call in (store.get, store.show, store.discard):
        with pytest.raises(SecretNotFound):
            db.write_now(lambda conn, call=call: call(conn, key_id, project_id="p2"))
    assert db.read_now(lambda conn: store.listing(conn, "p2")) == []


def test_listing_pages_newest_first_without_values(db: Database, store: KeyStore) -> None:
    made = [_create(db, store) for _ in range(5)]
    first = db.read_now(lambda conn: store.listing(conn, "p1", limit=3))
    rest = db.read_now(lambda conn: store.listing(conn, "p1", marker=first[-1].id))
    assert [row.id for row in (*first, *rest)] == made[::-1]
    assert "sealed" not in first[0]._mapping


def test_a_list_begins_behind_no_secret_of_another_project(db: Database, store: KeyStore) -> None:
    _create(db, store)
    foreign = db.write_now(lambda conn: store.generate(conn, project_id="p2", user_id="u2"))
    assert db.read_now(lambda conn: store.listing(conn, "p1", marker=foreign)) == []
    assert len(db.read_now(lambda conn: store.listing(conn, None, marker=foreign))) == 1


@pytest.mark.parametrize(("type", "value"), [("rot13", b"x"), ("passphrase", b""), ("opaque", b"x" * 20_001)])
def test_unacceptable_secrets_are_refused(db: Database, store: KeyStore, type: str, value: bytes) -> None:
    with pytest.raises(SecretInvalid):
        db.write_now(lambda conn: store.create(conn, project_id="p", user_id="u", type=type, value=value))


def test_a_rolled_back_transaction_leaves_no_secret(db: Database, store: KeyStore) -> None:
    def accept(conn: object) -> None:
        store.generate(conn, project_id="p1", user_id="u1")  # type: ignore[arg-type]
        raise RuntimeError("refused later on")

    with pytest.raises(RuntimeError):
        db.write_now(accept)
    assert db.read_now(lambda conn: store.listing(conn, None)) == []


def test_a_secret_in_use_is_kept(db: Database, store: KeyStore) -> None:
    key_id = _create(db, store)
    volume_id = new_id()
    db.write_now(
        lambda conn: transition.enter(
            conn, "volume", "create", id=volume_id, project_id="p1", user_id="u1", size=1, encryption_key_id=key_id
        )
    )
    with pytest.raises(SecretInUse, match=volume_id):
        db.write_now(lambda conn: store.discard(conn, key_id, project_id="p1"))


def test_a_sealed_value_moved_to_another_id_or_project_does_not_open(db: Database, store: KeyStore) -> None:
    mine, theirs = _create(db, store), _create(db, store, project="p2")
    row = db.read_now(lambda conn: conn.execute(secrets.select().where(secrets.c.id == theirs)).one())
    swap = update(secrets).where(secrets.c.id == mine).values(nonce=row.nonce, sealed=row.sealed)
    db.write_now(lambda conn: conn.execute(swap) and None)
    db.write_now(
        lambda conn: conn.execute(update(secrets).where(secrets.c.id == theirs).values(project_id="p3")) and None
    )
    for key_id in (mine, theirs):
        with pytest.raises(SecretDamaged):
            db.read_now(lambda conn, key_id=key_id: store.get(conn, key_id))


def test_no_file_of_the_database_holds_the_value(db: Database, store: KeyStore, tmp_path: Path) -> None:
    _create(db, store)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert CANARY not in content
        assert CANARY.hex().encode() not in content


def test_a_wrong_key_is_refused_at_start_with_a_sentence(db: Database, store: KeyStore) -> None:
    with pytest.raises(WrongKeyEncryptionKey, match="does not open this database"):
        db.write_now(KeyStore(Kek.generate()).check)
    db.write_now(store.check)


def test_rotation_reseals_all_and_retires_the_old_key(db: Database) -> None:
    old, new = Kek.generate(), Kek.generate()
    store = KeyStore(old)
    db.write_now(store.check)
    made = [_create(db, store) for _ in range(3)]
    both = KeyStore(new, old)
    db.write_now(both.check)
    late = _create(db, both)
    assert db.write_now(lambda conn: both.rotate(conn, new)) == 3
    assert db.write_now(lambda conn: both.rotate(conn, new)) == 0
    after = KeyStore(new)
    db.write_now(after.check)
    for key_id in (*made, late):
        assert db.read_now(lambda conn, key_id=key_id: after.get(conn, key_id)).value == CANARY
    with pytest.raises(WrongKeyEncryptionKey):
        db.write_now(store.check)


def test_an_interrupted_rotation_opens_with_both_keys(db: Database) -> None:
    old, new = Kek.generate(), Kek.generate()
    key_id = _create(db, KeyStore(old))
    both = KeyStore(new, old)
    assert db.read_now(lambda conn: both.get(conn, key_id)).value == CANARY


def test_the_key_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    made = keks.make(path)
    assert path.stat().st_mode & 0o777 == 0o400
    assert keks.make(path) == made
    assert repr(made[0].value) not in repr(made[0])
    path.chmod(0o440)
    with pytest.raises(SecretUnreadable, match="others may read it"):
        keks.load(path)


def test_a_systemd_credential_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kek = Kek.generate()
    keks.store(tmp_path / keks.CREDENTIAL, (kek,))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert keks.load(None) == (kek,)


@pytest.mark.parametrize("text", [b"\n", b"c2hvcnQ=\n", b"!!!!\n"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "kek"
    path.write_bytes(text)
    os.chmod(path, 0o400)
    with pytest.raises(KeyFileInvalid):
        keks.load(path)
