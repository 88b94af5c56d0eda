"""Opening a PostgreSQL database: what is asked of it, and how its sessions are bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from coordinator.state.errors import DatabaseNotUsable, DriverMissing
from coordinator.state.kinds import POSTGRESQL

if TYPE_CHECKING:
    from coordinator.state.database import Database

OLDEST = 130000
_TOO_OLD = "its server is version {}, older than {}"
# A coordinator that is paused must not hold rows for longer than its leases last; one that waits for a row gives up
# in time to be told, and tries again.
_SESSION = {
    "idle_in_transaction_session_timeout": "8s",
    "lock_timeout": "15s",
    "statement_timeout": "60s",
    "timezone": "UTC",
}
_CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20000,
    "application_name": "brickyard-coordinator",
    "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
}


def address(url: str, password: str | None = None) -> URL:
    """The URL as SQLAlchemy wants it; raises DatabaseNotUsable. `postgresql://user@host:port/name?option=value`."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise DatabaseNotUsable(url="(state.url)", reason="it is no URL") from None
    if parsed.drivername not in {"postgresql", "postgresql+psycopg"}:
        raise DatabaseNotUsable(url=shown(parsed), reason="it does not begin with postgresql://")
    if not parsed.database:
        raise DatabaseNotUsable(url=shown(parsed), reason="it names no database")
    parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed if password is None else parsed.set(password=password)


def _connecting(url: URL) -> dict[str, Any]:
    """What a connection is opened with; what the URL says itself goes before."""
    options = " ".join([_CONNECT["options"], *url.query.get("options", "").split()])  # type: ignore[union-attr]
    return {**{name: value for name, value in _CONNECT.items() if name not in url.query}, "options": options}


def shown(url: URL | str) -> str:
    """The URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


def opened(cls: type[Database], url: str, *, password: str | None, writers: int, readers: int) -> Database:
    """Connect, check version and encoding."""
    from coordinator.state.tables import load_all
    from coordinator.state.tables.columns import for_postgresql

    where = address(url, password)
    try:
        from coordinator.state.pgcursor import LeanCursor

        connecting = _connecting(where)
        engine = create_engine(
            where, isolation_level="AUTOCOMMIT", pool_size=writers + readers + 1, max_overflow=2, pool_timeout=10,
            pool_recycle=3600, connect_args={**connecting, "cursor_factory": LeanCursor}, hide_parameters=True,
        )  # fmt: skip
    except ImportError as error:
        raise DriverMissing(package="psycopg", url=shown(where)) from error
    from coordinator.state.pgnews import PgNews

    for_postgresql(load_all())
    db = cls(engine, kind=POSTGRESQL, writers=writers, news=PgNews(where, connecting))
    try:
        number, encoding = db.read_now(
            lambda conn: conn.execute(
                text("SELECT current_setting('server_version_num')::int, current_setting('server_encoding')")
            ).one()
        )
        if number < OLDEST:
            raise DatabaseNotUsable(url=shown(where), reason=_TOO_OLD.format(number // 10000, OLDEST // 10000))
        if encoding != "UTF8":
            raise DatabaseNotUsable(url=shown(where), reason=f"its encoding is {encoding}, not UTF8")
    except BaseException:
        db.close()
        raise
    return db
