"""What this host was told to have attached: a durable table, keyed by attachment, fenced by generation.

A row is written before its device is made and removed after the kernel says that the device is gone, so whatever a
crash leaves behind stands in the table. Plain functions on the journal's database, each one part of a transaction.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from sqlite_utils import Database

from agent.host import sysfs
from agent.host.lvm import ATTACHED_PREFIX, ATTACHED_UUID
from agent.jobs import remote
from agent.jobs.errors import StaleGeneration
from agent.wire.jobs import Connection, Generation, LuksFormat, WantedAttachment

State = Literal["attached", "missing", "needs-secret", "stale"]
_COLUMNS = (
    "attachment_id, volume_id, backend, incarnation, sequence, mode, wanted, encryption, device, raw_device, raw, "
    "identifiers, boot_id, created_at, updated_at"
)
_PUT = f"INSERT OR REPLACE INTO attachments ({_COLUMNS}) VALUES ({', '.join('?' * 15)})"  # noqa: S608
_SELECT = f"SELECT {_COLUMNS} FROM attachments"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Row:
    """`wanted` False: it is to be removed. `device` is empty until it is attached.

    `identifiers` is what removal needs without the device: `path` of the volume's file and the device's `diskseq`, or
    the whole `connection` to another host; `detach_first`: it is attached in another mode than the one now wanted.
    """

    attachment_id: str
    volume_id: str
    backend: str
    generation: Generation
    mode: Literal["rw", "ro"] = "rw"
    wanted: bool = True
    encryption: LuksFormat | None = None
    device: str = ""
    raw_device: str = ""
    raw: bool = False
    identifiers: dict[str, Any] = field(default_factory=dict)
    boot_id: str = ""
    created_at: float = 0.0

    @property
    def connection(self) -> Connection | None:
        """How the volume is reached on another host; None: it lies on this one."""
        told = self.identifiers.get("connection")
        return Connection.model_validate(told) if told else None


@dataclass(frozen=True, slots=True)
class Wish:
    """The complete set that one volume shall have on this host."""

    volume_id: str
    backend: str
    generation: Generation
    wanted: tuple[WantedAttachment, ...] = ()
    encryption: LuksFormat | None = None
    path: str = ""
    connection: Connection | None = None

    def identifiers(self) -> dict[str, Any]:
        """What removal needs, known before anything is touched."""
        if self.connection is None:
            return {"path": self.path}
        return {"connection": self.connection.model_dump(mode="json")}


def decide(db: Database, wish: Wish) -> list[Row]:
    """Make the wish the truth to work towards; all rows of the volume, those to be removed included.

    StaleGeneration when a newer one is known; the same one again is fine.
    """
    given = (wish.generation.incarnation, wish.generation.sequence)
    known = generation_of(db, wish.volume_id)
    if known is not None and given < known:
        raise StaleGeneration(
            volume_id=wish.volume_id, known=".".join(map(str, known)), given=".".join(map(str, given))
        )
    db.execute(
        "INSERT OR REPLACE INTO generations (volume_id, incarnation, sequence, updated_at) VALUES (?, ?, ?, ?)",
        (wish.volume_id, *given, time.time()),
    )
    asked = {one.attachment_id: one for one in wish.wanted}
    rows = []
    for row in of_volume(db, wish.volume_id):
        still = asked.pop(row.attachment_id, None)
        row = replace(row, generation=wish.generation, wanted=still is not None)  # noqa: PLW2901
        if (
            wish.connection is not None
            and row.connection is not None
            and wish.connection.target == row.connection.target
        ):
            row = replace(row, identifiers={**row.identifiers, **wish.identifiers()})  # noqa: PLW2901
        if still is not None and still.mode != row.mode:
            row = replace(row, mode=still.mode, identifiers={**row.identifiers, "detach_first": True})  # noqa: PLW2901
        rows.append(row)
    rows += [
        Row(
            attachment_id=one.attachment_id,
            volume_id=wish.volume_id,
            backend=wish.backend,
            generation=wish.generation,
            mode=one.mode,
            encryption=wish.encryption,
            identifiers=wish.identifiers(),
            created_at=time.time(),
        )
        for one in asked.values()
    ]
    put(db, rows)
    return rows


def put(db: Database, rows: Iterable[Row]) -> None:
    for row in rows:
        encryption = row.encryption.model_dump_json() if row.encryption is not None else None
        db.execute(
            _PUT,
            (
                row.attachment_id, row.volume_id, row.backend, row.generation.incarnation, row.generation.sequence,
                row.mode, int(row.wanted), encryption, row.device, row.raw_device, int(row.raw),
                json.dumps(row.identifiers), row.boot_id, row.created_at, time.time(),
            ),
        )  # fmt: skip


def remove(db: Database, attachment_id: str) -> None:
    """Only after the kernel no longer shows its device."""
    db.execute("DELETE FROM attachments WHERE attachment_id = ?", (attachment_id,))


def forget_volume(db: Database, volume_id: str) -> None:
    """The volume is deleted: its generation is of no more use, as ids are never used twice."""
    db.execute("DELETE FROM generations WHERE volume_id = ?", (volume_id,))


def generation_of(db: Database, volume_id: str) -> tuple[int, int] | None:
    found = db.execute("SELECT incarnation, sequence FROM generations WHERE volume_id = ?", (volume_id,)).fetchone()
    return None if found is None else (found[0], found[1])


def of_volume(db: Database, volume_id: str) -> list[Row]:
    return [_row(found) for found in db.execute(f"{_SELECT} WHERE volume_id = ? ORDER BY rowid", (volume_id,))]


def all_rows(db: Database) -> list[Row]:
    return [_row(found) for found in db.execute(f"{_SELECT} ORDER BY rowid")]


def state_of(row: Row, boot_id: str, sys: Path = sysfs.SYS) -> State:
    """What the kernel says about a row now; what was attached under another boot id is gone. Blocking reads."""
    if not row.wanted:
        return "stale"
    if row.boot_id == boot_id and _there(row, sys):
        return "attached"
    return "needs-secret" if row.encryption is not None and row.device and not row.raw else "missing"


def _there(row: Row, sys: Path) -> bool:
    if row.connection is not None:
        return remote.there(row, row.connection, sys)
    if row.raw_device.startswith("/dev/mapper/"):
        return _mapped(row, sys)
    number = row.raw_device.removeprefix("/dev/loop")
    loop = sysfs.loop_device(int(number), sys) if number.isdigit() else None
    if loop is None or loop.file_name != PurePosixPath(row.identifiers.get("path", "")).name:
        return False
    if None not in {loop.diskseq, row.identifiers.get("diskseq")} and loop.diskseq != row.identifiers["diskseq"]:
        return False  # the same file, bound anew by somebody else
    title = row.device.removeprefix("/dev/mapper/")
    return title == row.device or sysfs.mapper_device(title, sys) is not None


def _mapped(row: Row, sys: Path) -> bool:
    device = sysfs.mapper_device(ATTACHED_PREFIX + row.attachment_id, sys)
    if device is None or device.uuid != ATTACHED_UUID + row.attachment_id:
        return False
    if row.identifiers.get("diskseq") not in {None, sysfs.diskseq(device.name, sys)}:
        return False
    title = row.device.removeprefix("/dev/mapper/")
    return sysfs.mapper_device(title, sys) is not None


def _row(found: tuple[Any, ...]) -> Row:
    return Row(
        attachment_id=found[0],
        volume_id=found[1],
        backend=found[2],
        generation=Generation(incarnation=found[3], sequence=found[4]),
        mode=found[5],
        wanted=bool(found[6]),
        encryption=LuksFormat.model_validate_json(found[7]) if found[7] else None,
        device=found[8] or "",
        raw_device=found[9] or "",
        raw=bool(found[10]),
        identifiers=json.loads(found[11] or "{}"),
        boot_id=found[12] or "",
        created_at=found[13] or 0.0,
    )
