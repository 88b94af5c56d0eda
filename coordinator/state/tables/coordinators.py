"""The coordinators of a site. `alive_until`: seconds since 1970 on the database's clock."""

from sqlalchemy import Column, DateTime, Double, String, Table

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import utcnow

coordinators = Table(
    "coordinators",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("version", String(63), nullable=False),
    Column("started_at", DateTime, nullable=False, default=utcnow),
    Column("alive_until", Double, nullable=False),
)
