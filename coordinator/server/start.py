"""Opening the state directory: database and schema, key-encryption key, CA. Safe to run again after any kill."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from agent.base.config import read_secret
from agent.base.errors import NotFound
from agent.base.files import write_whole
from coordinator.enrolment.authority import CaStore, FileCaStore, SiteAuthority, signing
from coordinator.identity.bootstrap import ADMIN_USER_ID, bootstrap
from coordinator.identity.keys import TokenKeys
from coordinator.keys import kek
from coordinator.keys.errors import KeyEncryptionKeyMissing
from coordinator.keys.store import KeyStore
from coordinator.quota import guard
from coordinator.quota.settings import QuotaSettings
from coordinator.server.roots import SharedCaStore, SharedTokenKeys
from coordinator.server.settings import CoordinatorSettings, StateSection
from coordinator.state import identity as state
from coordinator.state import keys as key_rows
from coordinator.state import types
from coordinator.state.database import Database
from coordinator.state.locks import hold_name
from coordinator.state.schema import prepare
from coordinator.state.usage import RULES

_PASSWORD = "database-password"  # noqa: S105 - the name of a credential


class DefaultTypeMissing(NotFound):
    code = "server.default-type-missing"
    exit_code = 78
    sentence = "Volume type {name}, which api.default_volume_type names, is not there."
    hint = "Start without that key, make the type (brickyard type create {name}), then set the key and start again."


@dataclass(frozen=True, slots=True)
class Opened:
    """What lies in a state directory, opened and checked."""

    db: Database
    keys: KeyStore
    authority: SiteAuthority
    tokens: TokenKeys | SharedTokenKeys


def open_state(settings: CoordinatorSettings) -> Opened:
    """Open, or make at the first start; raises what is wrong with a sentence and a remedy."""
    signing.begin()
    folder = settings.state_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    db = open_database(settings)
    try:
        rules = guard.rules_of(db.write_now(lambda conn: _schema(conn, settings)))
        db.engine.update_execution_options(**{RULES: rules})
        keys = key_store(settings, db)
        db.write_now(keys.check)
        _first_admin(settings, db)
        _default_type(settings, db)
        authority = SiteAuthority.open(ca_store(settings, db, keys))
        tokens = token_keys(settings, db, keys)
        db.engine.dispose()  # the connection that has made the schema holds all its pages
    except BaseException:
        db.close()
        raise
    return Opened(db, keys, authority, tokens)


def _schema(conn: Connection, settings: CoordinatorSettings) -> QuotaSettings:
    prepare(conn)
    return guard.check(conn, settings.quota)


def open_database(settings: CoordinatorSettings) -> Database:
    """The database that the configuration names; on SQLite its lock is held."""
    section = settings.state
    if section.url is None:
        db = Database.sqlite(settings.database_file)
    else:
        db = Database.postgresql(section.url, password=_password(section), writers=section.connections)
    return db


def _password(section: StateSection) -> str | None:
    given = (Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / _PASSWORD).exists()
    if section.password_file is None and not given:
        return None
    return read_secret(_PASSWORD, section.password_file).decode().rstrip("\n")


def ca_store(settings: CoordinatorSettings, db: Database, keys: KeyStore) -> CaStore:
    """Where the site's CA lies."""
    folder = settings.state_dir / "ca"
    return FileCaStore(folder) if db.alone else SharedCaStore(db, keys, folder)


def token_keys(settings: CoordinatorSettings, db: Database, keys: KeyStore) -> TokenKeys | SharedTokenKeys:
    """The keys that sign tokens; made where a site is new."""
    lifetime = settings.identity.token_lifetime
    if db.alone:
        return TokenKeys(settings.state_dir / "token-keys", lifetime)
    return SharedTokenKeys(db, keys, settings.state_dir, lifetime)


def _first_admin(settings: CoordinatorSettings, db: Database) -> None:
    """At the first start, make the user admin; its password lies in a file of the state directory (mode 0600)."""
    if db.read_now(lambda conn: state.by_id(conn, "user", ADMIN_USER_ID)) is not None:
        return
    path = settings.state_dir / "admin-password"
    if not path.exists():
        write_whole(path, (secrets.token_urlsafe(18) + "\n").encode())
    password = path.read_text().strip()

    def first(conn: Connection) -> bool:
        hold_name(conn, "first-admin")
        if state.by_id(conn, "user", ADMIN_USER_ID) is not None:
            return False
        bootstrap(conn, password, settings.identity.bcrypt_rounds)
        return True

    if not db.write_now(first):
        path.unlink(missing_ok=True)  # another coordinator of the site was first


def _default_type(settings: CoordinatorSettings, db: Database) -> None:
    """The type of volumes whose creator names none is there from the start."""
    name = settings.api.default_volume_type
    try:
        db.read_now(lambda conn: types.find(conn, name))
    except NotFound:
        if name != types.DEFAULT_NAME:
            raise DefaultTypeMissing(name=name) from None
        db.write_now(lambda conn: types.ensure_default(conn, name))


def key_store(settings: CoordinatorSettings, db: Database) -> KeyStore:
    """The sealed keys, with the key-encryption key that the configuration names; made where a site is new."""
    path = settings.keys.kek_file
    if path is None and not (Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / kek.CREDENTIAL).exists():
        path = settings.state_dir / "kek"
        if not path.exists() and db.read_now(key_rows.checks):
            raise KeyEncryptionKeyMissing(path=str(path))
        loaded = kek.make(path)
    else:
        loaded = kek.load(path)
    return KeyStore(loaded[0], *loaded[1:], path=str(path or f"the credential {kek.CREDENTIAL}"))
