"""What handlers work with: a few fixed collaborators, and further ones by their type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from coordinator.api.settings import ApiSettings

if TYPE_CHECKING:
    from coordinator.identity.authenticator import Authenticator
    from coordinator.identity.policy import Policy
    from coordinator.state.database import Database

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Services:
    """Filled once by the wiring. `others` maps a class to its one instance: the engine, the fleet, keys, images."""

    db: Database
    policy: Policy
    authenticator: Authenticator
    settings: ApiSettings = field(default_factory=ApiSettings)
    others: Mapping[type, Any] = field(default_factory=dict)

    def get(self, kind: type[T]) -> T:
        """The instance of a class; LookupError when the wiring has none (a defect of the wiring)."""
        found = self.others.get(kind)
        if not isinstance(found, kind):
            raise LookupError(f"the wiring gives no {kind.__name__}")
        return found

    def find(self, kind: type[T]) -> T | None:
        """Like `get`, but None where this coordinator runs without it."""
        found = self.others.get(kind)
        return found if isinstance(found, kind) else None
