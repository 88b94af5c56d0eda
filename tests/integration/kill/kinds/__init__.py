"""The operations that are killed at every fault point: what each needs, does, and must have done in the end."""

from __future__ import annotations

from tests.integration.kill.kinds import adopting, attaching, changing, creating, images, sealing

_OF = (creating, sealing, changing, adopting, attaching, images)
KINDS = {kind.name: kind for module in _OF for kind in module.KINDS}
