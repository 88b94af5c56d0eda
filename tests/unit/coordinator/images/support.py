"""A database with the tables that images need, and short ways to fill it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.images import catalog
from coordinator.images.catalog import Caller, Image
from coordinator.state.database import Database
from coordinator.state.tables import metadata, types  # noqa: F401 - volumes refer to it
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.transition import move
from tests.support import databases

OWNER = Caller("p1")
OTHER = Caller("p2")
ADMIN = Caller("adm", is_admin=True)


def database(folder: Path) -> Database:
    made = databases.empty(folder / "state.db")
    metadata.create_all(made.engine)
    return made


def image(db: Database, caller: Caller = OWNER, **values: Any) -> Image:
    given = {"name": "disk", "disk_format": "raw", "container_format": "bare", **values}
    return db.write_now(lambda conn: catalog.create(conn, caller, given))


def activate(db: Database, image_id: str, **values: Any) -> None:
    def run(conn: Any) -> None:
        move(conn, "image", image_id, "upload")
        move(conn, "image", image_id, "uploaded", **{"size": 1000, **values})

    db.write_now(run)


def host(db: Database, id: str, *, free: int = 1 << 30, **values: Any) -> None:
    row = {"reachable": True, "keeps_images": True, **values}

    def run(conn: Any) -> None:
        conn.execute(hosts.insert().values(id=id, **row))
        conn.execute(
            pools.insert().values(
                id=f"{id}@b#p", host_id=id, backend="b", name="p", driver="file", total_bytes=1 << 40, free_bytes=free,
                reported={}, updated_at=utcnow(),
            )
        )  # fmt: skip

    db.write_now(run)
