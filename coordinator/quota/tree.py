"""Quota in a tree of projects: what a project may use it may hand down, and what it handed down it can not use.

A project takes from the one above it its limit (or what it and those below it have, where that is more, as after its
limit was taken back); where it has no limit, what it uses. So a project without a limit can not pass the next limit
above it. Nothing of this is stored: it is computed in the transaction that spends or changes, so that it can not drift.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from agent.base.errors import Invalid, Temporary
from coordinator.quota.given import APART, UNLIMITED, own
from coordinator.quota.usage import used
from coordinator.state import hierarchy
from coordinator.state.locks import hold_name
from coordinator.state.together import forget, once


class HierarchyUnknown(Temporary):
    code = "identity.hierarchy-unknown"
    status = 503
    sentence = "It is not known which projects project {project} lies below, so its quota can not be told."
    hint = (
        "The user of [identity.keystone] must be allowed to look at projects (identity:get_project); "
        "then try again, or run: brickyard-coordinator quota change."
    )


class BelowUse(Invalid):
    code = "quota.below-use"
    sentence = "Quota limit {limit} for {resource} is below the {used} that project {project} uses and has handed down."
    hint = "Delete something, or lower the limits of the projects below it first."


class BeyondParent(Invalid):
    code = "quota.beyond-parent"
    sentence = "Quota limit {limit} for {resource} needs {needed} more of project {parent}, which has {free} free."
    hint = "Raise the limit of that project first, or ask for less."


class HandedDown(Invalid):
    code = "quota.handed-down"
    sentence = "The quota of project {project} can not be deleted: projects below it have {found} of it."
    hint = "Delete the quotas of the projects below it first."


class AlreadyBeyond(Invalid):
    code = "quota.already-beyond"
    sentence = "Quotas can not be shared out in the tree of projects as they are: {found}."
    hint = "Raise the limits of these projects, or lower those of the projects below them; then do it again."


@dataclass(slots=True)
class Tree:
    """Limits and amounts of projects as they are in one transaction, each looked up once."""

    conn: Connection
    _limits: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _used: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)

    def limit(self, project_id: str, resource: str) -> int:
        if project_id not in self._limits:
            self._limits[project_id] = own(self.conn, project_id)
        return self._limits[project_id].get(resource, UNLIMITED)

    def used(self, project_id: str, resource: str) -> int:
        """What the project itself has, reserved included."""
        if project_id not in self._used:
            self._used[project_id] = used(self.conn, project_id)
        return self._used[project_id].get(resource, 0)

    def allocated(self, project_id: str, resource: str) -> int:
        """What the projects below have taken."""
        return sum(self.taken(child, resource) for child in hierarchy.children(self.conn, project_id))

    def spent(self, project_id: str, resource: str) -> int:
        """What of the project's limit is gone."""
        return self.used(project_id, resource) + self.allocated(project_id, resource)

    def taken(self, project_id: str, resource: str) -> int:
        """What the project takes from the one above it."""
        return max(self.limit(project_id, resource), self.spent(project_id, resource))

    def hold(self, project_id: str) -> None:
        """Nobody else spends or changes what the project has; always from below to above."""
        if project_id not in self._held:
            once(self.conn, ("quota", project_id), lambda: self._hold(project_id))
            self._held.add(project_id)

    def _hold(self, project_id: str) -> None:
        """What was read before may have changed while the name was waited for."""
        hold_name(self.conn, f"quota:{project_id}")
        forget(self.conn, "usage")
        self._used.clear()
        self._limits.clear()

    def free(self, project_id: str, resource: str) -> tuple[str, int] | None:
        """The next project, from this one upwards, that has a limit, and what is free of it; None: no limit.

        All are held as far as that one, so that none between is given a limit meanwhile.
        """
        for one in (project_id, *hierarchy.ancestors(self.conn, project_id)):
            self.hold(one)
            if self.limit(one, resource) != UNLIMITED:
                return one, self.limit(one, resource) - self.spent(one, resource)
        return None


def check_known(conn: Connection, project_id: str) -> None:
    """Raise HierarchyUnknown for a project of which nobody has asked the identity service yet."""
    if not hierarchy.known(conn, project_id):
        raise HierarchyUnknown(project=project_id[:64])


def check_change(conn: Connection, project_id: str, values: Mapping[str, int]) -> None:
    """Raise BelowUse or BeyondParent for limits that the tree can not have; call it in the changing transaction."""
    check_known(conn, project_id)
    above = hierarchy.ancestors(conn, project_id)
    tree = Tree(conn)
    for one in (project_id, *above):
        tree.hold(one)
    for resource, limit in sorted(values.items()):
        if resource in APART:
            continue
        spent = tree.spent(project_id, resource)
        if 0 <= limit < spent:
            raise BelowUse(limit=limit, resource=resource, used=spent, project=project_id)
        needed = max(limit, spent) - tree.taken(project_id, resource)
        room = tree.free(above[0], resource) if above and needed > 0 else None
        if room is not None and needed > room[1]:
            raise BeyondParent(limit=limit, resource=resource, needed=needed, parent=room[0], free=max(0, room[1]))


def check_reset(conn: Connection, project_id: str, resources: Collection[str]) -> None:
    """Raise HandedDown where projects below have something of the project's."""
    check_known(conn, project_id)
    tree = Tree(conn)
    tree.hold(project_id)
    found = {one: tree.allocated(project_id, one) for one in sorted(resources) if one not in APART}
    if any(found.values()):
        told = ", ".join(f"{count} {resource}" for resource, count in found.items() if count)
        raise HandedDown(project=project_id, found=told)


def check_all(conn: Connection, resources: Collection[str]) -> None:
    """Raise HierarchyUnknown or AlreadyBeyond unless each project has what those below it take."""
    for stranger in hierarchy.strangers(conn):
        raise HierarchyUnknown(project=stranger)
    tree, found = Tree(conn), []
    for one in hierarchy.parents(conn):
        for resource in sorted(set(resources) - APART):
            limit, spent = tree.limit(one, resource), tree.spent(one, resource)
            if UNLIMITED != limit < spent:
                found.append(f"project {one} has {limit} {resource}, {spent} are used or handed down")
    if found:
        raise AlreadyBeyond(found="; ".join(found[:20]))
