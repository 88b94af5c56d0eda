"""QoS specs: limits that a volume type carries. `consumer` is who enforces them: `front-end`, `back-end` or `both`."""

from sqlalchemy import Column, ForeignKey, String, Table

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import id_column, times

qos_specs = Table(
    "qos_specs",
    metadata,
    id_column(),
    Column("name", String(255), nullable=False, unique=True),
    Column("consumer", String(16), nullable=False),
    *times(),
)

qos_spec_values = Table(
    "qos_spec_values",
    metadata,
    Column("qos_specs_id", String(36), ForeignKey("qos_specs.id"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", String(255), nullable=False),
)
