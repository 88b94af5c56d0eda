"""How usage is counted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agent.base.config import Section


class QuotaSettings(Section):
    """`[quota]`"""

    driver: Literal["dynamic", "stored"] | None = Field(
        None,
        description="`dynamic` counts what a project uses from its volumes and snapshots at each check; `stored` keeps "
        "the sums beside them, in the same transaction: for projects of ten thousand volumes and more. Unset: as the "
        "site counts already; a new one keeps sums on SQLite, and counts on PostgreSQL, where a sum would make the "
        "creates of one project wait for each other. The same on all coordinators; after a change: "
        "`brickyard-coordinator quota change`.",
    )
    no_snapshot_gb_quota: bool = Field(
        False,
        description="Snapshots do not count towards gigabytes. The same on all coordinators; after a change: "
        "`brickyard-coordinator quota change`.",
    )
    nested: bool = Field(
        False,
        description="Quotas are shared out in the tree of projects that a Keystone has: a project may hand down what "
        "it has, and a new one below another has nothing. The same on all coordinators; after a change: "
        "`brickyard-coordinator quota change`.",
    )
