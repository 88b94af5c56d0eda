"""What this host was told to offer to others: a durable table, keyed by attachment, fenced by generation.

Written before the kernel is touched, and a row leaves it only after its consumer can no longer get in; so a reboot, or
a kill anywhere, is healed from here without the coordinator. Plain functions on the journal's database.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from sqlite_utils import Database

from agent.jobs.errors import StaleGeneration
from agent.wire.chap import attachment_of, user_of
from agent.wire.jobs import Generation, WantedExport

if TYPE_CHECKING:
    from agent.jobs.sealing import Sealer

_COLUMNS = "name, volume_id, transport, incarnation, sequence, settings, boot_id, updated_at"
_PUT = f"INSERT OR REPLACE INTO exports ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_SELECT = f"SELECT {_COLUMNS} FROM exports"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of a row that travels as JSON. `sealed`: its CHAP secret under the host key; empty: none."""

    backend: str
    initiator: str
    mode: Literal["rw", "ro"] = "rw"
    username: str = ""
    sealed: str = ""
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """`wanted` False: it is to be removed. `boot_id`: when the kernel had it last; empty until it is offered."""

    attachment_id: str
    volume_id: str
    protocol: str
    generation: Generation
    settings: Settings
    boot_id: str = ""

    @property
    def wanted(self) -> bool:
        return self.settings.wanted


@dataclass(frozen=True, slots=True)
class Login:
    """A CHAP user, and the secret sealed for its attachment."""

    username: str
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wish:
    """The complete set of consumers that one volume shall have. `sealed` by attachment.

    `logins`: by initiator how it logs in already.
    """

    volume_id: str
    backend: str
    generation: Generation
    wanted: tuple[WantedExport, ...] = ()
    sealed: Mapping[str, str] = field(default_factory=dict, repr=False)
    logins: Mapping[str, Login] = field(default_factory=dict)


def decide(db: Database, wish: Wish) -> list[Row]:
    """Make the wish the truth to work towards; all rows of the volume, also those to be removed. StaleGeneration."""
    given = (wish.generation.incarnation, wish.generation.sequence)
    known = _generation(db, wish.volume_id)
    if known is not None and given < known:
        raise StaleGeneration(
            volume_id=wish.volume_id, known=".".join(map(str, known)), given=".".join(map(str, given))
        )
    db.execute(
        "INSERT OR REPLACE INTO export_generations (volume_id, incarnation, sequence, updated_at) VALUES (?, ?, ?, ?)",
        (wish.volume_id, *given, time.time()),
    )
    before = {row.attachment_id: row for row in of_volume(db, wish.volume_id)}
    logins = dict(wish.logins)
    rows = [_wanted(wish, one, before.get(one.attachment_id), logins) for one in wish.wanted]
    asked = {one.attachment_id for one in wish.wanted}
    rows += [
        replace(row, generation=wish.generation, settings=replace(row.settings, wanted=False))
        for row in before.values()
        if row.attachment_id not in asked
    ]
    put(db, rows)
    return rows


def _wanted(wish: Wish, one: WantedExport, known: Row | None, logins: dict[str, Login]) -> Row:
    # A host has one session, however many of its attachments use it, and the session logs in again by the name that
    # it was told first, also after that attachment has ended.
    login = Login("", "")
    if one.auth == "chap":
        told = known.settings.username if known is not None else ""
        user = told if attachment_of(told) == one.attachment_id else user_of(one.attachment_id)
        login = logins.setdefault(one.initiator, Login(user, wish.sealed.get(one.attachment_id, "")))
    settings = Settings(
        backend=wish.backend,
        initiator=one.initiator,
        mode=one.mode,
        username=login.username,
        sealed=wish.sealed.get(attachment_of(login.username), login.sealed),
    )
    boot_id = known.boot_id if known is not None else ""
    return Row(one.attachment_id, wish.volume_id, one.protocol, wish.generation, settings, boot_id)


def secret_of(row: Row, sealer: Sealer) -> bytes | None:
    """The CHAP secret of a row; None: it has none, or it can not be opened. Blocking."""
    settings = row.settings
    return sealer.open(settings.sealed, attachment_of(settings.username)) if settings.sealed else None


def logins_of(rows: Iterable[Row], sealer: Sealer) -> dict[str, Login]:
    """By initiator how it logs in; a secret that can not be opened any more is of no use. Blocking."""
    found: dict[str, Login] = {}
    for row in rows:
        if secret_of(row, sealer) is not None:
            found.setdefault(row.settings.initiator, Login(row.settings.username, row.settings.sealed))
    return found


def put(db: Database, rows: Iterable[Row]) -> None:
    for row in rows:
        generation = (row.generation.incarnation, row.generation.sequence)
        settings = json.dumps(asdict(row.settings))
        db.execute(
            _PUT,
            (row.attachment_id, row.volume_id, row.protocol, *generation, settings, row.boot_id, time.time()),
        )


def remove(db: Database, attachment_ids: Iterable[str]) -> None:
    """Only after the kernel lets these consumers in no more."""
    for attachment_id in attachment_ids:
        db.execute("DELETE FROM exports WHERE name = ?", (attachment_id,))


def forget_volume(db: Database, volume_id: str) -> None:
    """The volume is deleted: its generation is of no more use."""
    db.execute("DELETE FROM export_generations WHERE volume_id = ?", (volume_id,))


def of_volume(db: Database, volume_id: str) -> list[Row]:
    return [_row(found) for found in db.execute(f"{_SELECT} WHERE volume_id = ? ORDER BY rowid", (volume_id,))]


def all_rows(db: Database) -> list[Row]:
    return [_row(found) for found in db.execute(f"{_SELECT} ORDER BY rowid")]


def _generation(db: Database, volume_id: str) -> tuple[int, int] | None:
    query = "SELECT incarnation, sequence FROM export_generations WHERE volume_id = ?"
    found = db.execute(query, (volume_id,)).fetchone()
    return None if found is None else (found[0], found[1])


def _row(found: tuple[Any, ...]) -> Row:
    told = {key: value for key, value in json.loads(found[5] or "{}").items() if key in Settings.__slots__}
    return Row(
        attachment_id=found[0],
        volume_id=found[1],
        protocol=found[2],
        generation=Generation(incarnation=found[3], sequence=found[4]),
        settings=Settings(**told),
        boot_id=found[6] or "",
    )
