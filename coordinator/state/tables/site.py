"""What is said of the whole site: `incarnation`, raised when an older state takes the place of a newer; `adopting`;
`quota_driver`, `no_snapshot_gb_quota`: how usage is counted."""

from sqlalchemy import Column, String, Table

from coordinator.state.tables import metadata

site_values = Table(
    "site_values",
    metadata,
    Column("key", String(63), primary_key=True),
    Column("value", String(255), nullable=False),
)
