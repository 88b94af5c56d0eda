"""Choose a pool by filters and weighers, and claim its space in the same transaction."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from agent.base.log import get_logger
from coordinator.scheduler import filters, plugins, refusals, weighers
from coordinator.scheduler.board import Board, read_pool
from coordinator.scheduler.claims import claim, claim_any, claim_new, held_already
from coordinator.scheduler.errors import NoPool, PoolsAway
from coordinator.scheduler.pool import Pool
from coordinator.scheduler.request import Hints, Request, space_of
from coordinator.scheduler.settings import SchedulerSettings
from coordinator.state.locks import beside_others
from coordinator.state.together import hopeful

log = get_logger(__name__)
_SPREAD = 8
_CAPACITY = "CapacityFilter"
_NO_HINTS = Hints()


@dataclass(frozen=True, slots=True)
class Placement:
    pool_id: str
    host_id: str
    backend: str
    pool: str
    availability_zone: str
    cluster: str | None = None


class Scheduler:
    """Safe for several threads. One for each process; `seed` makes the lottery repeatable."""

    def __init__(self, settings: SchedulerSettings | None = None, *, seed: int | None = None) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - spreading, not secrecy
        self._lock = threading.Lock()
        self.follow(settings or SchedulerSettings())

    def follow(self, settings: SchedulerSettings) -> None:
        """Place by these from now on; raises BadPlugin, and goes on as before."""
        rules = {name: filters.FILTERS.get(name) or plugins.rule(name) for name in settings.filters}
        weights = settings.weights()
        if _CAPACITY not in rules:
            log.warning("no space is asked for, hosts alone refuse what is too much: CapacityFilter is not configured")
        with self._lock:
            self._rules, self._weights = rules, weights
            self._has_plugins = bool(rules.keys() - filters.FILTERS.keys())
            self.calculation, self.attempts = settings.over_provisioning_calculation, settings.attempts
            self._lottery = settings.choice == "lottery"
            self.board = Board(counts_volumes="VolumeNumberWeigher" in weights, calculation=self.calculation)

    def place(self, conn: Connection, request: Request) -> Placement:
        """Claim the best pool; raises NoPool that names for each pool the first rule it failed.

        PoolsAway when a host that does not answer is all that is missing.
        """
        with self._lock:
            self.board.refresh(conn)
            proposed = self._candidates(request, _SPREAD if beside_others(conn) else 1, held_already(conn))
            if proposed:
                self.board.took(proposed[0], request.device_bytes)
        # Outside of the lock: the claim waits for whoever has the pool's row, who may be waiting for the lock.
        claimed = self._claimed(conn, proposed, request)
        if proposed and claimed is not proposed[0]:
            with self._lock:
                self.board.gave(proposed[0], request.device_bytes)
                if claimed is not None:
                    self.board.took(claimed, request.device_bytes)
        return _placed(claimed) if claimed is not None else self._place_anew(conn, request)

    def _place_anew(self, conn: Connection, request: Request) -> Placement:
        """The board may be a second old: what it refused, or the database did, is looked at anew, one by one."""
        with self._lock:
            self.board.refresh(conn, now=True)
            candidates = self._candidates(request, None)
        for pool in candidates:
            if self._claims(conn, pool, request):
                with self._lock:
                    self.board.took(pool, request.device_bytes)
                return _placed(pool)
        with self._lock:
            self.board.refresh(conn)  # Of other rules, since a moment ago, there is a board that knows nothing yet.
            raise self._refused(request)

    def is_quick(self) -> bool:
        """Whether `place` now reads nothing but what it claims, and looks at a few pools, for what has no hints."""
        return self.board.is_fresh() and self._is_plain(Request(0))

    def unfit(self, conn: Connection, request: Request) -> str | None:
        """Why work can not stay in pool `request.pool_id`, with the name of the filter; None when it can.

        It is asked by the same rules as what is new; only whether the host takes new volumes does not matter.
        """
        pool = read_pool(conn, request.pool_id or "", self.calculation)
        return "is not known any more" if pool is None else self._against(pool, request)

    def claim_there(self, conn: Connection, request: Request) -> None:
        """Claim space in pool `request.pool_id` for what lies there already; raises NoPool with the filter's name."""
        pool = read_pool(conn, request.pool_id or "", self.calculation)
        reason = "is not known any more" if pool is None else self._against(pool, request)
        if pool is not None and reason is None:
            thick, limited = pool.thick_for(request.wants_thick), _CAPACITY in self._rules
            way = self.calculation if limited else None
            if claim(conn, pool.id, request.device_bytes, thick=thick, by=way):
                return
            reason = self.unfit(conn, request) or pool.refusal or "was taken by others meanwhile"
        raise NoPool(reasons=f"{request.pool_id} {reason}")

    def why_not(self, conn: Connection, request: Request) -> dict[str, str | None]:
        """For each pool the first rule that it fails, None where the request fits. Nothing is claimed."""
        with self._lock:
            self.board.refresh(conn, now=True)
            return {pool.id: self._refusal(pool, request) for pool in self.board.pools}

    def _claimed(self, conn: Connection, proposed: Sequence[Pool], request: Request) -> Pool | None:
        """The pool that has room for it, of these; where all are being changed one of them is waited for."""
        if len(proposed) > 1 or (proposed and _CAPACITY in self._rules and hopeful(conn)):
            asked = request.wants_thick
            thick = proposed[0].thick_for(asked)
            alike = {pool.id: pool for pool in proposed if pool.thick_for(asked) == thick}
            won = claim_any(conn, list(alike), request.device_bytes, thick=thick, by=self.calculation)
            if won is not None:
                return alike[won]
            proposed = [self._dice.choice(proposed)]
        return next((pool for pool in proposed if self._claims(conn, pool, request)), None)

    def _claims(self, conn: Connection, pool: Pool, request: Request) -> bool:
        thick = pool.thick_for(request.wants_thick)
        way = self.calculation if _CAPACITY in self._rules else None
        return claim_new(conn, pool.id, request.device_bytes, thick=thick, by=way)

    def _candidates(self, request: Request, count: int | None, prefer: Collection[str] = ()) -> list[Pool]:
        """Best first: all that fit, or the best one, which up to `count` that are nearly as good may come behind."""
        if count is not None and self._is_plain(request):
            key = (request.availability_zone, request.wants_thick, tuple(sorted(request.extra_specs.items())))
            best = self.board.roomiest(
                lambda pool: self._static_refusal(pool, request) is None,
                thick=request.wants_thick,
                key=key,
                count=count,
                prefer=prefer,
            )
            thick = request.wants_thick
            return [pool for pool in best if pool.room(thick) >= request.device_bytes]
        asked = self.board.pools if request.pool_id is None else self.board.only(request.pool_id)
        fitting = [pool for pool in asked if self._refusal(pool, request) is None]
        drawn = weighers.drawn(fitting, request, self._weights, self._dice) if self._lottery else None
        found = drawn if drawn is not None else weighers.ordered(fitting, request, self._weights)
        return found if count is None else found[:1]

    def _is_plain(self, request: Request) -> bool:
        """Whether room alone decides among pools whose other rules do not depend on this one volume."""
        by_room = self._weights.get("CapacityWeigher", 0.0) > 0 and not (
            self._weights.keys() - {"CapacityWeigher", "GoodnessWeigher"}
        )
        special = request.pool_id is not None or request.hints != _NO_HINTS or request.refused or self._has_plugins
        return by_room and _CAPACITY in self._rules and not (self._lottery or special or self.board.has_functions)

    def _static_refusal(self, pool: Pool, request: Request) -> str | None:
        if pool.refusal is not None:
            return pool.refusal
        return self._against(pool, request, but=_CAPACITY)

    def _against(self, pool: Pool, request: Request, but: str = "") -> str | None:
        """The first filter that refuses, and why."""
        for name, rule in self._rules.items():
            reason = rule(pool, request) if name != but else None
            if reason is not None:
                return f"{reason} [{name}]"
        return None

    def _refusal(self, pool: Pool, request: Request, *, though_away: bool = False) -> str | None:
        if pool.refusal is not None and not (though_away and pool.away):
            return pool.refusal
        said = request.refused and request.refused.get(space_of(pool.id, pool.cluster, pool.name))
        return f"did not take it ({said}) [IgnoreAttemptedHostsFilter]" if said else self._against(pool, request)

    def _refused(self, request: Request) -> NoPool:
        reasons, away = [], False
        for pool in self.board.pools if request.pool_id is None else self.board.only(request.pool_id):
            reason = self._refusal(pool, request) or "was taken by others meanwhile"
            reasons.append((pool.host_id, pool.id, reason))
            away = away or (pool.away and self._refusal(pool, request, though_away=True) is None)
        nowhere = "no host is enrolled" if request.pool_id is None else f"{request.pool_id} is not known any more"
        told = refusals.told(reasons) or nowhere
        return PoolsAway(reasons=told) if away else NoPool(reasons=told)


def _placed(pool: Pool) -> Placement:
    return Placement(pool.id, pool.host_id, pool.backend, pool.name, pool.availability_zone, pool.cluster)
