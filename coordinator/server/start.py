"""Opening the state directory: database and schema, key-encryption key, CA. Safe to run again after any kill."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from agent.base.errors import NotFound
from agent.base.files import write_whole
from coordinator.enrolment.ca import Authority, FileCaStore
from coordinator.identity.bootstrap import ADMIN_USER_ID, bootstrap
from coordinator.keys import kek
from coordinator.keys.store import KeyStore
from coordinator.server.settings import CoordinatorSettings
from coordinator.state import identity as state
from coordinator.state import types
from coordinator.state.database import Database
from coordinator.state.schema import prepare


@dataclass(frozen=True, slots=True)
class Opened:
    """What lies in a state directory, opened and checked."""

    db: Database
    keys: KeyStore
    authority: Authority


def open_state(settings: CoordinatorSettings) -> Opened:
    """Open, or make at the first start; raises what is wrong with a sentence and a remedy."""
    folder = settings.state_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = _keys(settings, folder)
    db = Database.sqlite(settings.database_file)
    try:
        db.write_now(prepare)
        db.write_now(keys.check)
        _first_admin(settings, db)
        _default_type(settings, db)
        authority = Authority.open(FileCaStore(folder / "ca"))
    except BaseException:
        db.close()
        raise
    return Opened(db, keys, authority)


def _first_admin(settings: CoordinatorSettings, db: Database) -> None:
    """At the first start, make the user admin; its password lies in a file of the state directory (mode 0600)."""
    if db.read_now(lambda conn: state.by_id(conn, "user", ADMIN_USER_ID)) is not None:
        return
    path = settings.state_dir / "admin-password"
    if not path.exists():
        write_whole(path, (secrets.token_urlsafe(18) + "\n").encode())
    password = path.read_text().strip()
    db.write_now(lambda conn: bootstrap(conn, password, settings.identity.bcrypt_rounds))


def _default_type(settings: CoordinatorSettings, db: Database) -> None:
    """The type of volumes whose creator names none is there from the start."""
    name = settings.api.default_volume_type
    try:
        db.read_now(lambda conn: types.find(conn, name))
    except NotFound:
        db.write_now(lambda conn: types.ensure_default(conn, name))


def _keys(settings: CoordinatorSettings, folder: Path) -> KeyStore:
    path = settings.keys.kek_file
    if path is None and not (Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / kek.CREDENTIAL).exists():
        path = folder / "kek"
        loaded = kek.make(path)
    else:
        loaded = kek.load(path)
    return KeyStore(loaded[0], *loaded[1:], path=str(path or f"the credential {kek.CREDENTIAL}"))
