"""Configuration of the back ends, one model per driver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from agent.base.config import Section


class PlacementSection(Section):
    """What every back end tells the scheduler."""

    reserved_percent: int = Field(
        0, ge=0, le=99, description="Share of the whole space that is never given to volumes, in percent."
    )
    max_over_subscription: Annotated[float, Field(ge=1.0, le=1000.0)] | Literal["auto"] = Field(
        20.0,
        description="How often a thin pool's space may be promised; `auto` follows what volumes really use.",
    )
    capabilities: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description='Words of your own that volume types can ask for, such as `media = "ssd"`.'
    )
    filter_function: str = Field("", description="Expression that is true for volumes that may be placed here.")
    goodness_function: str = Field("", description="Expression from 0 to 100: how well a volume fits here.")

    def placement(self) -> dict[str, Any]:
        """The same, by the names of `PoolState`."""
        return {name: getattr(self, name) for name in PlacementSection.model_fields}


class FileBackendConfig(PlacementSection):
    """Volumes as sparse raw files in a folder."""

    driver: Literal["file"] = Field("file", description="Kind of back end: sparse raw files in a folder.")
    path: Path = Field(description="Folder for the volumes; made when it does not exist. Reflink needs XFS or Btrfs.")
    rate_limit: int | None = Field(
        None, ge=65536, description="Limit of each copy made by this back end, in bytes a second; none by default."
    )
