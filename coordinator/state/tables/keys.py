"""The sealed key store: each payload is AES-GCM under the key-encryption key, bound to its own id."""

from sqlalchemy import Boolean, Column, DateTime, Index, Integer, LargeBinary, String, Table, false

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, times

secrets = Table(
    "secrets",
    metadata,
    id_column(),
    Column("project_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("name", String(255)),
    Column("type", String(16), nullable=False),
    Column("algorithm", String(16)),
    Column("bit_length", Integer),
    Column("kek_id", String(64), nullable=False),
    Column("nonce", LargeBinary(12), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("deposit_name", String(64)),
    Column("external", Boolean, nullable=False, server_default=false(), default=False),
    Column("manager", String(16)),
    Column("moving_to", String(16)),
    Column("moving_name", String(64)),
    *times(),
    Index("ix_secrets_project", "project_id"),
)

"""`deposit_name`: what the key is, or is about to be, called at the key manager `manager`; `external`: its id is the
one there. `moving_to`: which other one it is to lie at (or `local`), there as `moving_name`, once that is chosen."""

key_removals = Table(
    "key_removals",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created_at", DateTime, nullable=False),
    Column("manager", String(16)),
)
"""What has to go from a key manager, by name; one from before there could be two of them has no `manager`."""

key_checks = Table(
    "key_checks",
    metadata,
    Column("kek_id", String(64), primary_key=True),
    Column("nonce", LargeBinary(12), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

site_secrets = Table(
    "site_secrets",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("kek_id", String(64), nullable=False),
    Column("nonce", LargeBinary(12), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("updated_at", DateTime, nullable=False),
)
"""What all coordinators of a site share and nobody may list: the CA, the keys that sign tokens. Sealed alike."""
