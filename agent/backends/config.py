"""Configuration of the back ends, one model per driver."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from agent.base.config import Section


class FileBackendConfig(Section):
    """Volumes as sparse raw files in a folder."""

    driver: Literal["file"] = Field("file", description="Kind of back end: sparse raw files in a folder.")
    path: Path = Field(description="Folder for the volumes; made when it does not exist. Reflink needs XFS or Btrfs.")
    reserved_percent: int = Field(
        0, ge=0, le=99, description="Share of the file system that is never given to volumes, in percent."
    )
    max_over_subscription: float = Field(
        20.0, ge=1.0, le=1000.0, description="How many times the file system's size may be promised to volumes."
    )
    rate_limit: int | None = Field(
        None, ge=65536, description="Limit of each copy made by this back end, in bytes a second; none by default."
    )
