"""The targets `lio`, `iser` and `vhost`: SCSI by the kernel, over TCP or RDMA, or for guests of this host. Each volume
has a target of its own, named by its id, with one LUN.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.host import lio, scsi
from agent.privsep import lio as verbs
from agent.privsep.client import call
from agent.targets import backing
from agent.targets.addresses import reachable_at, reachable_by_rdma
from agent.targets.base import Consumer, Offered
from agent.targets.config import Portals
from agent.targets.errors import AlwaysWritable
from agent.wire.jobs import LOCAL_GUESTS, Connection, Portal


class LioTarget:
    """See `agent.targets.base.Target`. `address`: where this host is reached when no portals are configured."""

    protocol = "iscsi"
    modules: tuple[str, ...] = ("target_core_mod",)
    _fabric: lio.Fabric = "iscsi"

    def __init__(self, config: Portals, address: str | None = None, root: Path = lio.CONFIGFS) -> None:
        self._config, self._address, self._root = config, address, root

    async def apply(self, volume_id: str, path: Path, consumers: Sequence[Consumer]) -> Mapping[str, Connection]:
        portals = await asyncio.to_thread(self._portals)
        device, diskseq = await backing.attach(volume_id, path)
        made = await call(
            verbs.lio_apply,
            volume_id,
            device,
            diskseq,
            [(portal.address, portal.port) for portal in portals],
            [(one.initiator, one.mode == "ro", one.username, one.secret) for one in _by_initiator(consumers)],
            fabric=self._fabric,
        )
        users = {one.initiator: one for one in _by_initiator(consumers)}
        return {one.attachment_id: self._connection(made, portals, users[one.initiator]) for one in consumers}

    async def withdraw(self, volume_id: str) -> bool:
        there = False
        if lio.target(volume_id, self._root, self._fabric) is not None:
            there = await call(verbs.lio_remove, volume_id, fabric=self._fabric)
        return await backing.release(volume_id) or there

    async def grow(self, volume_id: str, size: int) -> None:
        await backing.grow(volume_id, size)

    def offered(self) -> Mapping[str, Offered]:
        return {
            found.volume_id: Offered(
                targets={one.initiator: found.target for one in found.consumers},
                ready=found.ready and bool(found.portals),
                initiators=frozenset(one.initiator for one in found.consumers),
                connected=frozenset(one.initiator for one in found.consumers if one.connected),
            )
            for found in lio.targets(self._root, self._fabric)
        }

    def _portals(self) -> tuple[Portal, ...]:
        choose = reachable_by_rdma if self._fabric == "iser" else reachable_at
        named = choose(self._config.portals, self._address)
        return tuple(Portal(address=str(address), port=self._config.port) for address in named)

    def _connection(self, made: dict[str, Any], portals: tuple[Portal, ...], user: Consumer) -> Connection:
        return Connection(
            protocol=self.protocol,
            target=made["target"],
            portals=portals,
            lun=made["lun"],
            identity=scsi.lio_identity(made["serial"]),
            serial=made["serial"],
            size_bytes=made["size"],
            auth="none" if user.secret is None else "chap",
            username=user.username,
            transport="iser" if self._fabric == "iser" else "tcp",
        )


class IserTarget(LioTarget):
    """For consumers by iSER: a target of its own per volume, whose portals an RDMA device must answer."""

    protocol = "iser"
    modules: tuple[str, ...] = ("target_core_mod", "ib_isert")
    _fabric = "iser"


class VhostTarget(LioTarget):
    """For guests of this host: an endpoint of its own per volume, which one of them at a time can open."""

    protocol = "vhost"
    modules: tuple[str, ...] = ("target_core_mod", "vhost_scsi")
    _fabric = "vhost"

    def __init__(self, root: Path = lio.CONFIGFS) -> None:
        super().__init__(Portals(), root=root)

    async def apply(self, volume_id: str, path: Path, consumers: Sequence[Consumer]) -> Mapping[str, Connection]:
        for one in consumers:
            if one.mode == "ro":
                raise AlwaysWritable(volume=volume_id, initiator=one.initiator, by="vhost")
        device, diskseq = await backing.attach(volume_id, path)
        made = await call(verbs.lio_apply, volume_id, device, diskseq, [], [], fabric=self._fabric)
        return {one.attachment_id: self._connection(made, (), one) for one in consumers}

    def offered(self) -> Mapping[str, Offered]:
        return {
            found.volume_id: Offered({LOCAL_GUESTS: found.target}, found.ready, frozenset({LOCAL_GUESTS}), None)
            for found in lio.targets(self._root, self._fabric)
        }


def _by_initiator(consumers: Sequence[Consumer]) -> list[Consumer]:
    """One per initiator: the first, which may write when any of them may."""
    found: dict[str, Consumer] = {}
    for one in consumers:
        first = found.setdefault(one.initiator, one)
        if one.mode == "rw" and first.mode == "ro":
            found[one.initiator] = Consumer(first.attachment_id, first.initiator, "rw", first.username, first.secret)
    return list(found.values())
