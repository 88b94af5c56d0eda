"""The targets `nvmet` and `nvmet_rdma`: NVMe by the kernel, over TCP or RDMA. Each consumer of a volume has a subsystem
of its own, with one namespace.

The volume's id is the namespace's UUID and NGUID, so that any consumer can prove what it got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from agent.host import nvmet
from agent.privsep import nvmet as verbs
from agent.privsep.client import call
from agent.targets import backing
from agent.targets.addresses import reachable_at, reachable_by_rdma
from agent.targets.base import Consumer, Offered
from agent.targets.config import NvmetConfig
from agent.targets.errors import AlwaysWritable
from agent.wire.jobs import Connection, Portal


class NvmetTarget:
    """See `agent.targets.base.Target`. `address`: where this host is reached when no portals are configured."""

    protocol = "nvme-tcp"
    modules: tuple[str, ...] = ("nvmet", "nvmet_tcp")
    _transport: Literal["tcp", "rdma"] = "tcp"

    def __init__(self, config: NvmetConfig, address: str | None = None, root: Path = nvmet.CONFIGFS) -> None:
        self._config, self._address, self._root = config, address, root

    async def apply(self, volume_id: str, path: Path, consumers: Sequence[Consumer]) -> Mapping[str, Connection]:
        for one in consumers:
            if one.mode == "ro":
                raise AlwaysWritable(volume=volume_id, initiator=one.initiator, by="NVMe")
        choose = reachable_by_rdma if self._transport == "rdma" else reachable_at
        addresses = await asyncio.to_thread(choose, self._config.portals, self._address)
        device, diskseq = await backing.attach(volume_id, path)
        port, standby = self._config.port, self._config.standby
        made = await call(
            verbs.nvmet_apply,
            volume_id,
            device,
            diskseq,
            [(address, port, True) for address in addresses] + [(address, port, False) for address in standby],
            list(dict.fromkeys(one.initiator for one in consumers)),
            transport=self._transport,
        )
        portals = tuple(Portal(address=address, port=port) for address in (*addresses, *standby))
        return {
            one.attachment_id: Connection(
                protocol=self.protocol,
                target=made["targets"][one.initiator],
                portals=portals,
                nsid=made["nsid"],
                identity=f"uuid.{made['uuid']}",
                size_bytes=made["size"],
                transport=self._transport,
            )
            for one in consumers
        }

    async def withdraw(self, volume_id: str) -> bool:
        there = False
        if nvmet.subsystems(volume_id, self._root, self._transport):
            there = await call(verbs.nvmet_remove, volume_id, transport=self._transport)
        return await backing.release(volume_id) or there

    async def grow(self, volume_id: str, size: int) -> None:
        if await backing.grow(volume_id, size) and nvmet.subsystems(volume_id, self._root):
            await call(verbs.nvmet_grow, volume_id)

    def offered(self) -> Mapping[str, Offered]:
        found: dict[str, list[nvmet.Subsystem]] = {}
        for one in nvmet.subsystems(root=self._root, transport=self._transport):
            found.setdefault(one.volume_id, []).append(one)
        return {volume_id: _offered(subsystems) for volume_id, subsystems in found.items()}


class NvmetRdmaTarget(NvmetTarget):
    """For consumers by RDMA: subsystems and ports of its own, which an RDMA device must answer."""

    protocol = "nvme-rdma"
    modules: tuple[str, ...] = ("nvmet", "nvmet_rdma")
    _transport = "rdma"


def _offered(subsystems: list[nvmet.Subsystem]) -> Offered:
    """A subsystem that is only half made lets nobody in yet."""
    whole = [one for one in subsystems if one.ready and one.portals]
    targets = {initiator: one.target for one in whole for initiator in one.initiators}
    return Offered(targets=targets, ready=bool(whole), initiators=frozenset(targets), connected=None)
