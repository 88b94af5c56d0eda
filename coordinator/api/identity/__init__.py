"""The small Identity v3 that clients log in with, and that administrators manage users, projects and roles by."""

from __future__ import annotations

from coordinator.api.route import Resource


def identity_resources() -> tuple[Resource, ...]:
    """All tables below `/identity`."""
    from coordinator.api.identity.discovery import discovery
    from coordinator.api.identity.projects import projects
    from coordinator.api.identity.roles import roles
    from coordinator.api.identity.tokens import tokens
    from coordinator.api.identity.users import users

    return discovery(), tokens(), users(), projects(), roles()
