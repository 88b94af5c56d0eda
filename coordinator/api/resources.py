"""Every resource that is served, in the order of the reference pages."""

from __future__ import annotations

from coordinator.api.route import Resource


def all_resources() -> tuple[Resource, ...]:
    """The tables; imported here and nowhere else, so that a command that serves nothing does not pay for them."""
    from coordinator.api.identity import identity_resources

    return (*identity_resources(),)
