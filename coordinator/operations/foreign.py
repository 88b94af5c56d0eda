"""What a host lists as not managed by one of its back ends."""

from __future__ import annotations

from agent.base.errors import NotFound, Permanent
from agent.wire.results import ForeignItem
from coordinator.operations.engine import Engine
from coordinator.operations.errors import UnknownHost

Foreign = ForeignItem


class TooOld(Permanent):
    code = "manage.agent-too-old"
    status = 400
    sentence = "The agent of host {host} is of a release that can not manage what others made."
    hint = "Upgrade it."


async def foreign(engine: Engine, host_id: str, place: str) -> list[Foreign]:
    """Of a back end (or one of its pools). Asks the host now; raises UnknownHost, TooOld, or why it does not answer."""
    client = engine.agents.client(host_id)
    if client is None:
        raise UnknownHost(host=host_id)
    try:
        return [item for item in await client.foreign() if item.backend == place]
    except NotFound:
        raise TooOld(host=host_id) from None
