"""How full the place of an LVM back end is, and what follows from that: what is promised, refused, told, added."""

from __future__ import annotations

from dataclasses import dataclass

from agent.backends.base import Held, Kind, PoolState
from agent.backends.config import LvmBackendConfig
from agent.backends.errors import NoSpace, OverSubscribed, PoolMissing, PoolNearlyFull
from agent.backends.lvm_report import GroupState, Volume
from agent.host import lvm as names
from agent.privsep.errors import GroupMissing
from agent.wire.results import ratio_in_force

_KINDS: dict[str, Kind] = {"volume": "volume", "snapshot": "snapshot", "partial": "leftover", "dying": "leftover"}
_METADATA_STEP = 4 << 20


@dataclass(frozen=True, slots=True)
class Space:
    """One report seen as one back end. Sizes are bytes."""

    backend: str
    config: LvmBackendConfig
    group: GroupState

    @property
    def pool(self) -> Volume | None:
        """The thin pool; None for thick volumes. PoolMissing when it should be there."""
        if self.config.pool is None:
            return None
        found = self.group.volume(self.config.pool)
        if found is None or "pool" not in found.lv_layout.split(","):
            reason = "there is no such thin pool" if found is None else f"it is {found.lv_layout}"
            raise PoolMissing(backend=self.backend, group=self.group.name, pool=self.config.pool, reason=reason)
        if not found.zeroes:
            reason = "it does not clear its blocks (lvchange --zero y), so old data could be read"
            raise PoolMissing(backend=self.backend, group=self.group.name, pool=self.config.pool, reason=reason)
        return found

    def ours(self) -> list[tuple[names.Part, str, Volume]]:
        """Part, id and volume of everything that belongs to this back end."""
        found: list[tuple[names.Part, str, Volume]] = []
        for volume in self.group.volumes:
            named = names.parsed_name(volume.lv_name)
            if named is not None and volume.pool_lv == (self.config.pool or ""):
                found.append((*named, volume))
        return found

    @property
    def promised(self) -> int:
        return sum(volume.lv_size for part, _, volume in self.ours() if part in {"volume", "snapshot"})

    @property
    def _half_made(self) -> int:
        return sum(volume.lv_size for part, _, volume in self.ours() if part == "partial")

    @property
    def foreign(self) -> int:
        """What others have made in the same space, their snapshots not counted."""
        if self.pool is None:
            ours_here = sum(volume.lv_size for _, _, volume in self.ours())
            return max(0, self.group.size - self.group.free - ours_here)
        ours = {volume.lv_name for _, _, volume in self.ours()}
        others = (volume for volume in self.group.volumes if volume.pool_lv == self.config.pool)
        return sum(other.lv_size for other in others if other.lv_name not in ours and not other.origin)

    def state(self, since: int = 0) -> PoolState:
        """What the scheduler is told; `since`: bytes that were promised after the report."""
        pool = self.pool
        total = self.group.size if pool is None else pool.lv_size
        free = self.group.free - since if pool is None else int(total * (1 - (pool.data_percent or 0.0) / 100))
        return PoolState(
            name=self.backend,
            driver="lvm",
            total_bytes=total,
            free_bytes=max(0, free),
            allocated_bytes=self.promised + since,
            foreign_bytes=self.foreign,
            byte_granular=True,
            thin=pool is not None,
            thick=pool is None,
            reflink=pool is not None,
            data_percent=pool.data_percent if pool is not None else None,
            metadata_percent=pool.metadata_percent if pool is not None else None,
            **self.config.placement(),
        )

    def held(self) -> list[Held]:
        return [Held(_KINDS[part], ident, volume.exact, self._taken(volume)) for part, ident, volume in self.ours()]

    def _taken(self, volume: Volume) -> int:
        """A thin volume that is not active does not tell; then nothing is claimed of it."""
        return volume.lv_size if self.config.pool is None else int(volume.lv_size * (volume.data_percent or 0.0) / 100)

    def check(self) -> None:
        """PoolMissing when the place is not what the configuration says."""
        _ = self.pool

    def admit(self, more: int, since: int = 0) -> None:
        """Refuse to make something of `more` bytes when `since` were promised after the report.

        NoSpace, OverSubscribed, PoolNearlyFull, PoolMissing.
        """
        pool, config = self.pool, self.config
        more = names.rounded(more, self.group.extent)
        if pool is None:
            reserve = self.group.size * config.reserved_percent // 100
            if more > self.group.free - reserve - since:
                raise NoSpace(backend=self.backend)
            return
        for part, percent, mark in self._marks(pool):
            if percent >= mark:
                raise PoolNearlyFull(backend=self.backend, percent=percent, part=part, mark=mark)
        total = pool.lv_size
        free = int(total * (1 - (pool.data_percent or 0.0) / 100))
        promised = self.promised + self.foreign
        ratio = ratio_in_force(config.max_over_subscription, total=total, free=free, promised=promised)
        limit = int((total - total * config.reserved_percent // 100) * ratio)
        promised += self._half_made + since
        if promised + more > limit:
            raise OverSubscribed(backend=self.backend, allocated=promised, limit=limit, need=more)

    def full(self) -> list[PoolNearlyFull]:
        """The marks that are passed, for people."""
        pool = self.pool
        marks = [] if pool is None else self._marks(pool)
        return [
            PoolNearlyFull(backend=self.backend, percent=percent, part=part, mark=mark)
            for part, percent, mark in marks
            if percent >= mark
        ]

    def broken(self) -> list[GroupMissing]:
        """Whether devices of the group are away."""
        count = self.group.missing_devices
        return [GroupMissing(group=self.group.name, reason=f"{count} of its devices are missing")] if count else []

    def _marks(self, pool: Volume) -> list[tuple[str, float, int]]:
        return [
            ("data", pool.data_percent or 0.0, self.config.create_limit_percent),
            ("metadata", pool.metadata_percent or 0.0, self.config.metadata_limit_percent),
        ]

    def growth(self) -> dict[str, int]:
        """Bytes to add now to the pool's `data` and `metadata`; what the group can not give is not asked for."""
        pool, mark = self.pool, self.config.autoextend_percent
        if pool is None or mark >= 100:
            return {}
        wanted: dict[str, int] = {}
        free = self.group.free
        if (pool.metadata_percent or 0.0) >= mark and pool.lv_metadata_size:
            more = names.rounded(max(_METADATA_STEP, pool.lv_metadata_size // 2), self.group.extent)
            # LVM keeps a spare of the same size.
            if 2 * more <= free:
                wanted["metadata"] = more
                free -= 2 * more
        if (pool.data_percent or 0.0) >= mark:
            more = names.rounded(pool.lv_size * self.config.autoextend_by_percent // 100, self.group.extent)
            more = min(more, free // self.group.extent * self.group.extent)
            if more > 0:
                wanted["data"] = more
        return wanted
