"""The aiohttp application of the coordinator's public API."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from coordinator.api.dispatch import Dispatcher, Hooks
from coordinator.api.route import Resource
from coordinator.api.services import Services

SERVICES = web.AppKey("services", Services)


def make_app(resources: Iterable[Resource], services: Services, hooks: Hooks | None = None) -> web.Application:
    """An application that serves `resources`; run it with `aiohttp.web.AppRunner(app, access_log=None)`."""
    from coordinator.api.discovery import discovery
    from coordinator.api.documents import documents
    from coordinator.api.metrics import metrics

    served = tuple(resources)
    own = (discovery(), metrics())
    everything = (*served, *own, documents((*served, *own)))
    app = web.Application(client_max_size=0)
    app[SERVICES] = services

    async def closed(_app: web.Application) -> None:
        await services.authenticator.close()

    app.on_cleanup.append(closed)
    app.router.add_route("*", "/{path:.*}", Dispatcher(everything, services, hooks or Hooks()).handle)
    return app
