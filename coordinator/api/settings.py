"""The `[api]` table of coordinator.toml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agent.base.config import Section


class ApiSettings(Section):
    response_validation: Literal["error", "warn", "ignore"] = Field(
        "warn", description="What happens when an answer does not match its schema: a 500, a line in the log, nothing."
    )
    public_endpoint: str | None = Field(
        None, description="The address that links name, for example behind a proxy; default: what the caller used."
    )
    project_id_regex: str = Field(
        r"[0-9a-f\-]+", description="What a project id in a path looks like, to tell it from the name of a resource."
    )
    max_limit: int = Field(1000, ge=1, description="The most items of one page of a list.")
    default_volume_type: str = Field(
        "__DEFAULT__", description="The volume type of volumes whose creator names none; made at start if need be."
    )
    max_body: int = Field(114688, ge=1024, description="The longest request body that is read, in bytes.")
    sync_timeout: float = Field(180.0, gt=0, description="Seconds that a synchronous call waits for its operation.")
