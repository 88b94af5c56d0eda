"""Repository of join tokens, enrolled hosts and certificates. Plain sync functions; the caller's transaction."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, delete, insert, select, update
from sqlalchemy.engine import CursorResult

from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.enrolment import certificates, enrolled_hosts, join_tokens


@dataclass(frozen=True, slots=True)
class EnrolledHost:
    """A host that has joined; `key_sha256` is the public key it is pinned by (hex)."""

    name: str
    address: str
    control_port: int
    data_port: int
    key_sha256: str
    enrolled_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when a certificate is good, naive UTC."""

    not_before: datetime.datetime
    not_after: datetime.datetime

    def due(self, now: datetime.datetime) -> bool:
        """A third of the life has passed."""
        return now >= self.not_before + (self.not_after - self.not_before) / 3


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """An issued certificate; `chain` PEM, times naive UTC. `installed_at`: when the holder is known to have it."""

    serial: str
    role: str
    host: str | None
    key_sha256: str
    chain: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    installed_at: datetime.datetime | None = None
    revoked_at: datetime.datetime | None = None


def create_token(conn: Connection, lifetime_s: float, host: str | None = None) -> tuple[str, str]:
    """A new one-time token; returns (id, secret). The secret is stored as a digest only.

    `host` binds it to that name and lets it replace a host that is enrolled under it.
    """
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    expires = utcnow() + datetime.timedelta(seconds=lifetime_s)
    row = {"id": token_id, "secret_sha256": _digest(secret), "host": host, "expires_at": expires}
    conn.execute(insert(join_tokens).values(row))
    return token_id, secret


def find_token(conn: Connection, token_id: str, secret: str) -> RowMapping | None:
    """The token's row when the secret is right, else None, after the same work for an unknown id."""
    row = conn.execute(select(join_tokens).where(join_tokens.c.id == token_id)).mappings().one_or_none()
    expected = row["secret_sha256"] if row is not None else _digest("")
    return row if hmac.compare_digest(expected, _digest(secret)) else None


def token_allows(row: RowMapping, host: str, key_sha256: str) -> bool:
    """Whether a token may be used for this host and key; a repeat of its one use may."""
    if row["host"] is not None and row["host"] != host:
        return False
    if row["used_at"] is not None:
        return bool((row["used_by"], row["used_key_sha256"]) == (host, key_sha256))
    return bool(row["expires_at"] > utcnow())


def use_token(conn: Connection, token_id: str, host: str, key_sha256: str) -> bool:
    """Spend the token; False when another one was faster."""
    statement = update(join_tokens).where(join_tokens.c.id == token_id, join_tokens.c.used_at.is_(None))
    result = conn.execute(statement.values(used_at=utcnow(), used_by=host, used_key_sha256=key_sha256))
    return _count(result) == 1


def list_tokens(conn: Connection) -> Sequence[RowMapping]:
    """All tokens without their digests, newest first."""
    columns = [column for column in join_tokens.c if column.name != "secret_sha256"]
    return conn.execute(select(*columns).order_by(join_tokens.c.created_at.desc())).mappings().all()


def delete_token(conn: Connection, token_id: str) -> bool:
    return _count(conn.execute(delete(join_tokens).where(join_tokens.c.id == token_id))) == 1


def purge_tokens(conn: Connection, older_than: datetime.datetime) -> int:
    """Drop tokens that ran out before `older_than`; returns how many."""
    return _count(conn.execute(delete(join_tokens).where(join_tokens.c.expires_at < older_than)))


def host(conn: Connection, name: str) -> EnrolledHost | None:
    row = conn.execute(select(enrolled_hosts).where(enrolled_hosts.c.name == name)).one_or_none()
    return EnrolledHost(**row._mapping) if row is not None else None


def hosts(conn: Connection) -> list[EnrolledHost]:
    """All enrolled hosts, by name."""
    rows = conn.execute(select(enrolled_hosts).order_by(enrolled_hosts.c.name))
    return [EnrolledHost(**row._mapping) for row in rows]


def put_host(conn: Connection, host: EnrolledHost) -> None:
    """Enter a host, or replace what is known of it."""
    values = {name: getattr(host, name) for name in EnrolledHost.__slots__ if name != "name"}
    statement = update(enrolled_hosts).where(enrolled_hosts.c.name == host.name)
    if _count(conn.execute(statement.values(**values))) == 0:
        conn.execute(insert(enrolled_hosts).values(name=host.name, **values))


def evict_host(conn: Connection, name: str) -> bool:
    """Forget a host: its certificates are revoked and it is no longer pinned."""
    revoke_host(conn, name)
    conn.execute(update(certificates).where(certificates.c.host == name).values(host=None))
    return _count(conn.execute(delete(enrolled_hosts).where(enrolled_hosts.c.name == name))) == 1


def add_certificate(conn: Connection, row: CertificateRow) -> None:
    conn.execute(insert(certificates).values(**{name: getattr(row, name) for name in CertificateRow.__slots__}))


def current_certificate(conn: Connection, role: str, key_sha256: str) -> CertificateRow | None:
    """The certificate its holder has: the installed one that lasts longest; None when that is revoked."""
    statement = select(certificates).where(
        certificates.c.role == role, certificates.c.key_sha256 == key_sha256, certificates.c.installed_at.is_not(None)
    )
    row = conn.execute(statement.order_by(certificates.c.not_after.desc()).limit(1)).one_or_none()
    if row is None or row.revoked_at is not None:
        return None
    return CertificateRow(**row._mapping)


def spans_of_hosts(conn: Connection) -> dict[tuple[str, str], Span]:
    """By (host, key): the life of the certificate that `current_certificate` names, for all hosts at once."""
    columns = ("host", "key_sha256", "not_before", "not_after", "revoked_at")
    query = select(*(certificates.c[name] for name in columns)).where(
        certificates.c.host.is_not(None), certificates.c.installed_at.is_not(None)
    )
    found: dict[tuple[str, str], Span] = {}
    for row in conn.execute(query.order_by(certificates.c.not_after)):
        place = (row.host, row.key_sha256)
        if row.revoked_at is None:
            found[place] = Span(row.not_before, row.not_after)
        else:
            found.pop(place, None)
    return found


def mark_installed(conn: Connection, serial: str) -> None:
    """Its holder confirmed that it uses this certificate."""
    conn.execute(update(certificates).where(certificates.c.serial == serial).values(installed_at=utcnow()))


def revoke(conn: Connection, serial: str) -> bool:
    """Put one certificate on the deny list."""
    statement = update(certificates).where(certificates.c.serial == serial, certificates.c.revoked_at.is_(None))
    return _count(conn.execute(statement.values(revoked_at=utcnow()))) == 1


def revoke_host(conn: Connection, name: str, keep_key: str | None = None) -> int:
    """Deny all of a host's certificates, except those on `keep_key`; returns how many."""
    statement = update(certificates).where(certificates.c.host == name, certificates.c.revoked_at.is_(None))
    if keep_key is not None:
        statement = statement.where(certificates.c.key_sha256 != keep_key)
    return _count(conn.execute(statement.values(revoked_at=utcnow())))


def denied_serials(conn: Connection) -> list[str]:
    """Serials of revoked certificates that have not run out by themselves."""
    statement = select(certificates.c.serial).where(
        certificates.c.revoked_at.is_not(None), certificates.c.not_after > utcnow()
    )
    return list(conn.execute(statement.order_by(certificates.c.serial)).scalars())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _count(result: CursorResult[tuple[()]]) -> int:
    return result.rowcount
