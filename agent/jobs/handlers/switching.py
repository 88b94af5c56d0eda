"""A copy that was made beside a volume is put in its place: once that is decided, a job goes forward only."""

from __future__ import annotations

from agent.backends.abilities import Replacing
from agent.backends.base import Backend
from agent.base.errors import BrickyardError
from agent.jobs.errors import SwitchUnclear

DECIDED = "decided"
"""In a job's checkpoint: the copy is whole, and is the volume's content from now on."""


async def is_between(backend: Backend, volume_id: str) -> bool:
    """Whether a kill came between the two names of a switch: there is a whole copy, and no volume."""
    return await backend.size(volume_id) is None and await backend.prepared(volume_id) is not None


async def switch(place: Replacing, volume_id: str) -> None:
    """Raises SwitchUnclear when not even the back end can say which content the volume has."""
    try:
        await place.replace(volume_id)
    except (BrickyardError, OSError) as failure:
        raise SwitchUnclear(volume_id=volume_id, reason=str(failure)) from failure
