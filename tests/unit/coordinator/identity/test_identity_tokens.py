"""Tokens, their keys, passwords, the limiter, and the file form of the service."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from coordinator.identity import passwords
from coordinator.identity.bootstrap import ADMIN_USER_ID, ImportRefused, bootstrap, exported, imported
from coordinator.identity.errors import BadCredentials, TokenRefused, TooManyFailures
from coordinator.identity.keys import KeysUnsafe, TokenKeys
from coordinator.identity.limiter import Limiter
from coordinator.identity.local import LocalIdentity
from coordinator.identity.scope import Named, Scope
from coordinator.identity.settings import IdentitySettings
from coordinator.identity.tokens import Claims, read, sign
from coordinator.state import identity as state
from coordinator.state.tables import load_all
from tests.support import databases

CLAIMS = Claims("t1", "u1", "project", "p1", 1000.0, 2000.0, ("password",))
SLOW = IdentitySettings(bcrypt_rounds=4)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def db(tmp_path):
    database = databases.empty(tmp_path / "state.db")
    load_all().create_all(database.engine)
    database.write_now(lambda conn: bootstrap(conn, "first password", rounds=4))
    yield database
    database.close()


def test_a_token_tells_its_claims_until_it_ends(tmp_path):
    keys = TokenKeys(tmp_path / "keys", 5000, Clock())
    token = sign(CLAIMS, keys)
    assert read(token, keys, 1999.9) == CLAIMS
    with pytest.raises(TokenRefused):
        read(token, keys, 2000.0)


@given(st.text(max_size=200))
def test_anything_else_is_refused(tmp_path_factory, text):
    keys = TokenKeys(tmp_path_factory.mktemp("k") / "keys", 5000, Clock())
    good = sign(CLAIMS, keys)
    for token in (text, good + text, text + good, f"by1.{text}", f"{good.rpartition('.')[0]}.{text}"):
        if token != good:
            with pytest.raises(TokenRefused):
                read(token, keys, 1500.0)


def test_every_changed_byte_is_refused(tmp_path):
    keys = TokenKeys(tmp_path / "keys", 5000, Clock())
    good = sign(CLAIMS, keys)
    for at in range(len(good)):
        changed = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
        with pytest.raises(TokenRefused):
            read(changed, keys, 1500.0)


def test_keys_rotate_and_the_one_before_verifies(tmp_path):
    clock = Clock()
    keys = TokenKeys(tmp_path / "keys", 100, clock)
    first = sign(CLAIMS, keys)
    clock.now += 101
    second = sign(CLAIMS, keys)
    assert first.split(".")[1] != second.split(".")[1]
    assert read(first, keys, 1500) == CLAIMS
    again = TokenKeys(tmp_path / "keys", 100, clock)
    assert read(first, again, 1500) == read(second, again, 1500) == CLAIMS
    keys.rotate()
    with pytest.raises(TokenRefused):
        read(first, keys, 1500)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_unsafe_keys_are_refused(tmp_path):
    path = tmp_path / "keys"
    TokenKeys(path, 100)
    path.chmod(0o644)
    with pytest.raises(KeysUnsafe):
        TokenKeys(path, 100)
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(KeysUnsafe):
        TokenKeys(path, 100)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeysUnsafe):
        TokenKeys(path, 100)


def test_long_passwords_are_not_cut():
    stored = passwords.hashed("x" * 100 + "a", 4)
    assert passwords.is_hash(stored)
    assert passwords.matches("x" * 100 + "a", stored, 4)
    assert not passwords.matches("x" * 100 + "b", stored, 4)
    assert not passwords.matches("", None, 4)
    assert not passwords.matches("x", "not a hash", 4)


def test_one_address_can_not_try_user_after_user():
    clock = Clock()
    limiter = Limiter(2, 10, clock)
    for number in range(1000):
        limiter.attempt(f"good{number}", "a")
        limiter.succeeded(f"good{number}", "a")
    for number in range(50):
        limiter.attempt(f"u{number}", "a")
    with pytest.raises(TooManyFailures):
        limiter.attempt("another", "a")
    limiter.attempt("another", "b")
    clock.now += 11
    limiter.attempt("another", "a")


def test_refused_attempts_do_not_fill_the_memory_of_the_limiter(monkeypatch):
    monkeypatch.setattr("coordinator.identity.limiter._KEYS", 100)
    limiter = Limiter(1, 10, Clock())
    for number in range(1000):
        with suppress(TooManyFailures):
            limiter.attempt(f"u{number}", "a")
    assert len(limiter._attempts) <= 100
    with pytest.raises(TooManyFailures):
        limiter.attempt("another", "a")


def test_the_limiter_counts_attempts_under_way():
    clock = Clock()
    limiter = Limiter(3, 10, clock)
    for _ in range(3):
        limiter.attempt("u", "a")
    with pytest.raises(TooManyFailures) as caught:
        limiter.attempt("u", "a")
    assert caught.value.retry_after == 10
    limiter.attempt("u", "b")
    clock.now += 10
    limiter.attempt("u", "a")
    limiter.succeeded("u", "a")
    for _ in range(3):
        limiter.attempt("u", "a")


async def test_verifying_is_cheap_and_follows_changes(db, tmp_path):
    local = LocalIdentity(db, TokenKeys(tmp_path / "keys", 5000), SLOW)
    issued = await local.login(Named(name="admin"), "first password", Scope(), None)
    await local.verify(issued.token)
    started = time.process_time()
    for _ in range(1000):
        _, principal = await local.verify(issued.token)
    assert (time.process_time() - started) / 1000 < 0.002
    assert principal.roles == {"admin", "member", "reader"}
    await local.revoke(issued.token)
    with pytest.raises(TokenRefused):
        await local.verify(issued.token)
    local.close()


async def test_many_calls_with_one_token_look_at_the_rows_once(db, tmp_path):
    local = LocalIdentity(db, TokenKeys(tmp_path / "keys", 5000), SLOW.model_copy(update={"recheck": 0.2}))
    issued = await local.login(Named(name="admin"), "first password", Scope(), None)
    looks = []

    def note(_conn: object, _cursor: object, statement: str, *_more: object) -> None:
        looks.extend(["look"] if "identity_revoked" in statement else [])

    event.listen(db.engine, "before_cursor_execute", note)
    for _ in range(3):
        looks.clear()
        await asyncio.gather(*(local.verify(issued.token) for _ in range(100)))
        assert len(looks) == 1
        await asyncio.sleep(0.25)
    local.close()


async def test_a_token_in_use_is_looked_at_while_nobody_waits(db, tmp_path):
    local = LocalIdentity(db, TokenKeys(tmp_path / "keys", 5000), SLOW.model_copy(update={"recheck": 6.0}))
    issued = await local.login(Named(name="admin"), "first password", Scope(), None)
    claims, _ = await local.verify(issued.token)
    await db.write(lambda conn: state.revoke_token(conn, claims.id, claims.expires, 0.0))
    began = time.monotonic()
    with suppress(TokenRefused):
        while time.monotonic() - began < 12:
            await local.verify(issued.token)
            await asyncio.sleep(0.01)
    assert 2.9 < time.monotonic() - began < 5.9
    local.close()


async def test_what_was_forgotten_is_not_remembered_by_a_look_under_way(db, tmp_path):
    local = LocalIdentity(db, TokenKeys(tmp_path / "keys", 5000), SLOW)
    issued = await local.login(Named(name="admin"), "first password", Scope(), None)
    looking = asyncio.ensure_future(local.verify(issued.token))
    await asyncio.sleep(0)
    claims = read(issued.token, local._keys, local.now())
    db.write_now(lambda conn: state.revoke_token(conn, claims.id, claims.expires, 0.0))
    local.forget()
    await asyncio.gather(looking, return_exceptions=True)
    with pytest.raises(TokenRefused):
        await local.verify(issued.token)
    local.close()


async def test_a_changed_password_ends_a_remembered_one(db, tmp_path):
    local = LocalIdentity(db, TokenKeys(tmp_path / "keys", 5000), SLOW)
    await local.proven(Named(id=ADMIN_USER_ID), "first password", None)
    fresh = passwords.hashed("second password", 4)
    await db.write(lambda conn: state.change(conn, "user", ADMIN_USER_ID, password_hash=fresh))
    with pytest.raises(BadCredentials):
        await local.proven(Named(id=ADMIN_USER_ID), "first password", None)
    await local.proven(Named(id=ADMIN_USER_ID), "second password", None)
    local.close()


async def test_many_at_once_with_one_password_are_one_attempt(db, tmp_path):
    local = LocalIdentity(db, TokenKeys(tmp_path / "keys", 5000), SLOW.model_copy(update={"failures_allowed": 2}))
    for password, right in (("first password", True), ("wrong", False)):
        calls = (local.proven(Named(name="admin"), password, "a") for _ in range(40))
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(item, (BadCredentials, TooManyFailures)) != right for item in found)
    for guess in ("wrong again", "and again"):
        with pytest.raises((BadCredentials, TooManyFailures)):
            await local.proven(Named(name="admin"), guess, "a")
    with pytest.raises(TooManyFailures):
        await local.proven(Named(name="admin"), "one more", "a")
    await local.proven(Named(name="admin"), "first password", "a")
    local.close()


def test_bootstrap_again_changes_nothing(db):
    before = db.read_now(exported)
    db.write_now(lambda conn: bootstrap(conn, "other password", rounds=4))
    assert db.read_now(exported) == before


def test_export_and_import(db, tmp_path):
    content = json.loads(json.dumps(db.read_now(exported)))
    other = databases.empty(tmp_path / "other.db")
    load_all().create_all(other.engine)
    counts = other.write_now(lambda conn: imported(conn, content))
    assert counts == {"domain": 1, "project": 2, "user": 2, "role": 4}
    assert other.read_now(exported) == content
    assert other.write_now(lambda conn: imported(conn, content)) == dict.fromkeys(counts, 0)
    other.close()


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"brickyard_identity": 1, "users": 7},
        {"brickyard_identity": 1, "users": [{"id": "x" * 36}]},
        {
            "brickyard_identity": 1,
            "users": [{"id": "x", "name": "n", "password_hash": "clear"}],
        },
        {"brickyard_identity": 1, "projects": [{"id": "x", "name": "admin", "domain_id": "default"}]},
        {"brickyard_identity": 1, "assignments": [{"user_id": "x"}]},
    ],
)
def test_a_bad_file_is_not_imported(db, content):
    before = db.read_now(exported)
    with pytest.raises(ImportRefused):
        db.write_now(lambda conn: imported(conn, content))
    assert db.read_now(exported) == before
