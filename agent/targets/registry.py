"""Which targets this host has, by protocol. A new one: a module beside `lio`, a table of configuration, a line here."""

from __future__ import annotations

from collections.abc import Mapping

from agent.targets.base import Target
from agent.targets.config import TargetsSection


def targets(section: TargetsSection, address: str | None = None) -> Mapping[str, Target]:
    """Those that are configured; nothing is touched yet."""
    found: list[Target] = []
    if section.lio is not None:
        from agent.targets.lio import LioTarget

        found.append(LioTarget(section.lio, address))
    if section.iser is not None:
        from agent.targets.lio import IserTarget

        found.append(IserTarget(section.iser, address))
    if section.vhost is not None:
        from agent.targets.lio import VhostTarget

        found.append(VhostTarget())
    if section.nvmet is not None:
        from agent.targets.nvmet import NvmetTarget

        found.append(NvmetTarget(section.nvmet, address))
    if section.nvmet_rdma is not None:
        from agent.targets.nvmet import NvmetRdmaTarget

        found.append(NvmetRdmaTarget(section.nvmet_rdma, address))
    return {target.protocol: target for target in found}
