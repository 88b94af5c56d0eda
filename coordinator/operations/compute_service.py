"""The compute service of the site as handlers find it: one class, whichever service is behind it."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.compute.base import Compute


@dataclass(frozen=True, slots=True)
class ComputeService:
    """There only where a compute service is configured."""

    used: Compute
