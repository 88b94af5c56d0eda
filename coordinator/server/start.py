"""Opening the state directory: database and schema, key-encryption key, CA. Safe to run again after any kill."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from coordinator.enrolment.ca import Authority, FileCaStore
from coordinator.keys import kek
from coordinator.keys.store import KeyStore
from coordinator.server.settings import CoordinatorSettings
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
        authority = Authority.open(FileCaStore(folder / "ca"))
    except BaseException:
        db.close()
        raise
    return Opened(db, keys, authority)


def _keys(settings: CoordinatorSettings, folder: Path) -> KeyStore:
    path = settings.keys.kek_file
    if path is None and not (Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / kek.CREDENTIAL).exists():
        path = folder / "kek"
        loaded = kek.make(path)
    else:
        loaded = kek.load(path)
    return KeyStore(loaded[0], *loaded[1:], path=str(path or f"the credential {kek.CREDENTIAL}"))
