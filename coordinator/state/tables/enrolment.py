"""Join tokens, enrolled hosts, and every certificate that was issued."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, ForeignKey, Integer, String, Table, Text

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import utcnow

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("secret_sha256", String(64), nullable=False),
    Column("host", String(63)),
    Column("created_at", DateTime, nullable=False, default=utcnow),
    Column("expires_at", DateTime, nullable=False),
    Column("used_at", DateTime),
    Column("used_by", String(63)),
    Column("used_key_sha256", String(64)),
)

enrolled_hosts = Table(
    "enrolled_hosts",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("address", String(255), nullable=False),
    Column("control_port", Integer, nullable=False),
    Column("data_port", Integer, nullable=False),
    Column("key_sha256", String(64), nullable=False),
    Column("enrolled_at", DateTime, nullable=False, default=utcnow),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("role", String(80), nullable=False, index=True),
    Column("host", String(63), ForeignKey("enrolled_hosts.name"), index=True),
    Column("key_sha256", String(64), nullable=False),
    Column("chain", Text, nullable=False),
    Column("not_before", DateTime, nullable=False),
    Column("not_after", DateTime, nullable=False, index=True),
    Column("installed_at", DateTime),
    Column("revoked_at", DateTime),
)
