"""The tree of projects as far as quota needs it: asked of the identity service once for each project, outside of any
transaction, and who in it may look at whose quota."""

from __future__ import annotations

from sqlalchemy import Connection

from agent.base.log import get_logger
from coordinator.identity.authenticator import Authenticator
from coordinator.identity.context import RequestContext
from coordinator.identity.errors import Forbidden
from coordinator.state import hierarchy
from coordinator.state.database import Database

log = get_logger(__name__)


class ProjectTree:
    """Only there where quotas are shared out in the tree (`quota.nested`)."""

    def __init__(self, db: Database, authenticator: Authenticator) -> None:
        self._db, self._authenticator = db, authenticator
        self._known: set[str] = set()

    async def learn(self, project_id: str) -> None:
        """Know what lies above the project. Where nobody can tell, what spends its quota is refused later."""
        if project_id in self._known:
            return
        if not await self._db.read(lambda conn: hierarchy.known(conn, project_id)):
            above = await self._authenticator.ancestors(project_id)
            if above is None:
                log.info("it can not be told which projects a project lies below", project=project_id[:64])
                return
            await self._db.write(lambda conn: hierarchy.learn(conn, project_id, above))
        self._known.add(project_id)


def whole_cloud(context: RequestContext) -> bool:
    """Whether the caller is administrator of more than the projects below his own."""
    principal = context.principal
    return context.is_admin and (principal.is_admin_project or principal.system)


def may_look(conn: Connection, context: RequestContext, project_id: str) -> None:
    """Raise Forbidden unless the project is the caller's own, or lies below it."""
    above = hierarchy.ancestors(conn, project_id)
    if not whole_cloud(context) and context.project_id not in {project_id, *above}:
        raise Forbidden(rule="volume_extension:quotas:show")


def may_change(conn: Connection, context: RequestContext, project_id: str) -> None:
    """Raise Forbidden unless the project lies directly below the caller's own."""
    above = hierarchy.parent(conn, project_id)
    if not whole_cloud(context) and (above is None or above != context.project_id):
        raise Forbidden(rule="volume_extension:quotas:update")
