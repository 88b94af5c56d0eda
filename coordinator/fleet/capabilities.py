"""What a back end can do, asked of its host now."""

from __future__ import annotations

from dataclasses import dataclass

from agent.base.errors import BrickyardError, NotFound, Temporary
from coordinator.fleet.directory import Directory

_DEADLINE_S = 10.0


class HostAway(Temporary):
    code = "capabilities.host-away"
    status = 503
    sentence = "Host {host} does not answer, so its capabilities are not known: {reason}"
    hint = "See: brickyard host show {host}."


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Of all pools of a back end together; `protocol` is the first that it offers volumes by."""

    backend: str
    protocol: str
    thin: bool
    multiattach: bool


async def capabilities(directory: Directory | None, host: str, backend: str, pool: str) -> Capabilities:
    """An empty `backend` or `pool` means any; raises HostAway (503), NotFound (404)."""
    client = directory.client(host) if directory is not None else None
    if client is None:
        raise HostAway(host=host, reason="it is not enrolled at this coordinator.")
    try:
        pools = await client.pools(timeout=_DEADLINE_S)
    except (BrickyardError, TimeoutError) as error:
        raise HostAway(host=host, reason=str(error) or "it took too long.") from None
    found = [item for item in pools if backend in {"", item.backend} and pool in {"", item.name}]
    if not found:
        raise NotFound(noun="Back end", id=f"{host}@{backend}"[:255])
    return Capabilities(
        backend=found[0].backend,
        protocol=found[0].protocols[0] if found[0].protocols else "local",
        thin=any(item.thin for item in found),
        multiattach=any(item.multiattach for item in found),
    )
