"""Volumes that hold images for others to be cloned from, one for each image and back end."""

from sqlalchemy import Boolean, Column, DateTime, Index, Integer, String, Table, false

from coordinator.state.tables import metadata

image_cache = Table(
    "image_cache",
    metadata,
    Column("volume_id", String(36), primary_key=True),
    Column("place", String(255), nullable=False),
    Column("image_id", String(36), nullable=False),
    Column("version", String(255), nullable=False),
    Column("size", Integer, nullable=False),
    Column("operation_id", String(36), nullable=False),
    Column("ready", Boolean, nullable=False, default=False, server_default=false()),
    Column("verified", Boolean, nullable=False, default=False, server_default=false()),
    Column("leaving", Boolean, nullable=False, default=False, server_default=false()),
    Column("last_used", DateTime, nullable=False),
    Index("ix_image_cache_place", "place", "image_id"),
)
"""`place` is a pool, or what several hosts serve under one name; `version` changes with the image; `operation_id` is
the one that fills it. What is `leaving` is only there until its volume is deleted."""
