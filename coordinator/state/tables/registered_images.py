"""Images that this site registered at an image service outside of it."""

from sqlalchemy import Column, DateTime, Index, String, Table

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import times

registered_images = Table(
    "registered_images",
    metadata,
    Column("image_id", String(36), primary_key=True),
    Column("key_id", String(36)),
    Column("operation_id", String(36)),
    Column("looked_at", DateTime, nullable=False),
    *times(),
    Index("ix_registered_images_key", "key_id"),
    Index("ix_registered_images_looked", "looked_at"),
)
"""Written before the service is asked. `operation_id` is the upload that it is for: where there is none, the call that
registered it did not come to an end. After the upload a row stays while the image has the key `key_id`."""
