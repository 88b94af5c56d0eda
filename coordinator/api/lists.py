"""What a list call asks for, the same for every list: filters, sort keys, page, project, count.

A resource declares a `Listing`; `ask(call, listing)` reads the query by it. Which of its filters users may use is the
site's to say (`api.resource_filters_file`); administrators may use all that are declared. What nothing can be filtered
by is dropped for users before 3.31 and refused from there on; for administrators nothing matches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, false

from coordinator.api import paging
from coordinator.api.call import Call
from coordinator.api.resource_filters import ResourceFilters
from coordinator.state.paging import Page

_PROJECT = 2
Means = Callable[[str], ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Filter:
    """`means` turns the value into a condition, or raises BadRequest. `since` is a minor of 3.N; what tells of the site
    (`inside`) is for administrators at every version; before `since` it is unknown, or passed over (`quiet`). `once` is
    what the value meant before a minor of 3.N.

    `narrows` says how few rows its index finds among everybody's, and in one project: 0 is none, a project is 2. SQLite
    does not know which of several is the best; so where another one narrows more, `beside` is the condition, which
    says the same and uses no index.
    """

    means: Means
    since: int = 0
    inside: bool = False
    narrows: tuple[int, int] = (0, 0)
    beside: Means | None = None
    quiet: bool = False
    once: tuple[int, Means] | None = None

    def at(self, version: int) -> Filter:
        """As it is at a microversion."""
        if self.once is None or version >= self.once[0]:
            return self
        return replace(self, means=self.once[1], once=None)


@dataclass(frozen=True, slots=True)
class Listing:
    """`name` is the one in the file of filters; `sort_keys` maps keys of the API to columns; `links` is the key of the
    link to the next page. `own` are parameters of the call that are no filters.

    `early` are the filters that users had before the site had a say (3.31); None: even then those of the site.
    `open` lists are none of the site's: users may use every filter, at every version.
    """

    name: str
    filters: Mapping[str, Filter]
    sort_keys: Mapping[str, str]
    links: str
    own: tuple[str, ...] = ()
    own_since: Mapping[str, int] = field(default_factory=dict)
    counted: bool = False
    early: tuple[str, ...] | None = None
    open: bool = False
    more_links: tuple[str, ...] = ()
    """Other keys of the same link, where clients look for one that Cinder does not send."""
    sort_since: Mapping[str, int] = field(default_factory=dict)
    """From which microversion on there is a sort key that was not there from the first."""

    @property
    def query(self) -> tuple[str, ...]:
        """All query parameters, for the description of the call."""
        count = ("with_count",) if self.counted else ()
        paged = ("limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants", *count)
        return (*paged, *self.own, *self.filters)

    @property
    def described(self) -> dict[str, Any]:
        """The parameters, and from which microversion on there are those that came later, for a route."""
        since = {name: wanted.since for name, wanted in self.filters.items() if wanted.since} | dict(self.own_since)
        since |= {"with_count": 45} if self.counted else {}
        return {"query": self.query, "query_since": tuple(since.items())}


@dataclass(frozen=True, slots=True)
class Asked:
    """`project` is whose rows; None: everybody's (an administrator asks)."""

    page: Page
    where: Sequence[ColumnElement[bool]]
    project: str | None
    counting: bool
    listing: Listing

    def answer(self, call: Call, key: str, views: list[dict[str, Any]], count: int = 0) -> dict[str, Any]:
        """The page under its key, with the link to the next one and the count where it was asked for."""
        links = paging.next_links(call, self.listing.links, [view["id"] for view in views], self.page)
        for name in self.listing.more_links if links else ():
            links[name] = links[self.listing.links]
        return {key: views, **links, **({"count": count} if self.counting else {})}


def ask(call: Call, listing: Listing, *, lenient: bool = False) -> Asked:
    """Read the query of a list call; raises BadRequest (400) for what can not be understood or is not allowed, or where
    the call is `lenient` drops filters that the caller may not use."""
    early = [name for name, wanted in listing.filters.items() if wanted.quiet and call.version < wanted.since]
    found = paging.filters(call, _allowed(call, listing), (*listing.own, *early))
    nothing = listing.open or call.context.is_admin
    if not (nothing or lenient) and call.version >= paging.CONFIGURED:
        paging.refuse(found.unknown)
    given = dict(found.values)
    project = given.pop("project_id", None) or given.pop("tenant_id", None)
    given.pop("tenant_id", None)
    mine = project if paging.all_projects(call) else call.context.project_id
    wanted = [(listing.filters[name].at(call.version), value) for name, value in given.items()]
    where = _conditions(wanted, in_project=mine is not None)
    if (found.unknown and nothing and not lenient) or project not in {None, mine}:
        where.append(false())
    keys = {key: to for key, to in listing.sort_keys.items() if call.version >= listing.sort_since.get(key, 0)}
    counting = listing.counted and paging.wants_count(call)
    return Asked(paging.page(call, keys), where, mine, counting, listing)


def _conditions(given: Sequence[tuple[Filter, str]], *, in_project: bool) -> list[ColumnElement[bool]]:
    """Only the filter that narrows most is found by an index."""
    most = max([_PROJECT if in_project else 0, *(wanted.narrows[in_project] for wanted, _ in given)])
    return [
        wanted.means(value) if wanted.beside is None or wanted.narrows[in_project] >= most else wanted.beside(value)
        for wanted, value in given
    ]


def _allowed(call: Call, listing: Listing) -> list[str]:
    """The names this caller may filter by."""
    version = call.version
    admin = call.context.is_admin
    known = [name for name, wanted in listing.filters.items() if version >= wanted.since and admin >= wanted.inside]
    if admin:
        return [*known, "project_id", "tenant_id"]
    if listing.open:
        return known
    if version < paging.CONFIGURED and listing.early is not None:
        return [name for name in known if name in listing.early]
    site = call.services.find(ResourceFilters) or ResourceFilters.builtin()
    named = set(site.of(listing.name))
    return [name for name in known if name in named or f"{name}~" in named]
