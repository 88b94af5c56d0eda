"""The agent's control API: routes as `agent.wire.client` calls them, for coordinators alone (ARCHITECTURE §5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from agent.base import log as logs
from agent.base import state_report
from agent.base.errors import BrickyardError
from agent.base.log import bound, get_logger
from agent.base.metrics import registry
from agent.jobs.errors import JobDefect
from agent.server.access import require_role
from agent.server.errors import BadRequest, NoSuchRoute
from agent.server.report import Reporter
from agent.wire.jobs import JobRequest, Wire

if TYPE_CHECKING:
    from agent.jobs.runner import Runner
    from agent.server.identity import Identity
    from agent.server.views import Views

log = get_logger(__name__)
MAX_WAIT_S = 60.0
MAX_BODY = 4 << 20
_requests = registry.histogram(
    "brickyard_agent_request_seconds", "Time to answer a call of the control API, waiting included", route=32
)
Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Acknowledged(Wire):
    """Body of `POST /v1/jobs/acknowledge`."""

    keys: list[str] = Field(max_length=10_000)


class NewCertificate(Wire):
    """Body of `PUT /v1/identity/certificate` (PEM)."""

    certificate: str = Field(max_length=65536)
    ca: str = Field(max_length=65536)


class LogLevel(Wire):
    """Body of `PUT /v1/log`."""

    prefix: str = Field(max_length=255)
    level: Literal["debug", "info", "warning", "error"]


class Denied(Wire):
    """Body of `PUT /v1/identity/denied`."""

    serials: list[str]


def make_app(runner: Runner, views: Views, identity: Identity) -> web.Application:
    """The application, ready to be served under mutual TLS."""
    app = web.Application(
        middlewares=[require_role(identity.denied), _told], client_max_size=MAX_BODY, handler_args={"access_log": None}
    )
    app.add_routes([*_job_routes(runner), *_view_routes(views), *_identity_routes(identity), *_process_routes()])
    return app


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as bodies that the other side rebuilds; the log says what was not expected."""
    resource = request.match_info.route.resource
    with _requests.time(route=resource.canonical if resource is not None else "none"):
        try:
            return await handler(request)
        except BrickyardError as error:
            log.info("call refused", method=request.method, path=request.path, code=error.code, reason=str(error))
            return _error(error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            if error.status in {404, 405}:
                return _error(NoSuchRoute(noun="call", id=request.path, method=request.method, path=request.path))
            return _error(BadRequest(reason=error.reason))
        except Exception as error:
            log.exception("call met a defect", method=request.method, path=request.path)
            return _error(JobDefect(key=request.path, reason=f"{type(error).__name__}: {error}"))


def _job_routes(runner: Runner) -> list[web.RouteDef]:
    async def post(request: web.Request) -> web.Response:
        asked = await _body(request, JobRequest)
        wait = _seconds(request)
        with bound(request_id=asked.request_id or None, job=asked.key):
            status = await runner.accept(asked)
            if wait:
                status = await runner.wait_for_end(asked.key, wait)
        return _model(status, 202)

    async def get(request: web.Request) -> web.Response:
        key, wait = _key(request), _seconds(request)
        if not wait:
            return _model(await runner.status(key))
        return _model(await runner.wait_for_change(key, _number(request, "after", -1), wait))

    async def cancel(request: web.Request) -> web.Response:
        epoch = _number(request, "epoch", 0)
        if epoch < 1:
            raise BadRequest(reason="the epoch is missing")
        return _model(await runner.cancel(_key(request), epoch))

    async def acknowledge(request: web.Request) -> web.Response:
        dropped = await runner.acknowledge((await _body(request, Acknowledged)).keys)
        return _json({"acknowledged": dropped})

    async def listing(request: web.Request) -> web.Response:
        return _json({"jobs": [status.model_dump(mode="json") for status in await runner.listing()]})

    path = "/v1/jobs/{operation}/{step}/{attempt}"
    return [
        web.post("/v1/jobs", post),
        web.get("/v1/jobs", listing),
        web.post("/v1/jobs/acknowledge", acknowledge),
        web.get(path, get),
        web.delete(path, cancel),
    ]


def _view_routes(views: Views) -> list[web.RouteDef]:
    async def host(request: web.Request) -> web.Response:
        return _model(await views.host())

    reporter = Reporter(views)

    async def report(request: web.Request) -> web.Response:
        return _model(await reporter.report(request.query.get("have", "")))

    async def pools(request: web.Request) -> web.Response:
        return _rows("pools", await views.pools())

    async def inventory(request: web.Request) -> web.Response:
        held, away = await views.inventory()
        return _json({"inventory": [row.model_dump(mode="json") for row in held], "away": away})

    async def foreign(request: web.Request) -> web.Response:
        return _rows("foreign", await views.foreign())

    async def attachments(request: web.Request) -> web.Response:
        return _rows("attachments", await views.attachments())

    async def exports(request: web.Request) -> web.Response:
        return _rows("exports", await views.exports())

    async def issues(request: web.Request) -> web.Response:
        return _rows("issues", await views.issues())

    async def health(request: web.Request) -> web.Response:
        return _json(await views.health())

    async def metrics(request: web.Request) -> web.Response:
        await asyncio.to_thread(views.refresh_metrics)
        page = await asyncio.to_thread(registry.render)
        return web.Response(body=page, headers={"Content-Type": registry.content_type})

    return [
        web.get("/v1/host", host),
        web.get("/v1/report", report),
        web.get("/v1/pools", pools),
        web.get("/v1/inventory", inventory),
        web.get("/v1/foreign", foreign),
        web.get("/v1/attachments", attachments),
        web.get("/v1/exports", exports),
        web.get("/v1/issues", issues),
        web.get("/v1/health", health),
        web.get("/metrics", metrics),
    ]


def _identity_routes(identity: Identity) -> list[web.RouteDef]:
    async def csr(request: web.Request) -> web.Response:
        return _json({"csr": await asyncio.to_thread(identity.csr)})

    async def certificate(request: web.Request) -> web.Response:
        given = await _body(request, NewCertificate)
        await identity.install(given.certificate, given.ca)
        log.info("certificate renewed")
        return web.Response(status=204)

    async def denied(request: web.Request) -> web.Response:
        await asyncio.to_thread(identity.denied.replace, (await _body(request, Denied)).serials)
        return web.Response(status=204)

    return [
        web.post("/v1/identity/csr", csr),
        web.put("/v1/identity/certificate", certificate),
        web.put("/v1/identity/denied", denied),
    ]


def _process_routes() -> list[web.RouteDef]:
    async def get_log(request: web.Request) -> web.Response:
        return _json({"levels": logs.levels(request.query.get("prefix", ""))})

    async def set_log(request: web.Request) -> web.Response:
        asked = await _body(request, LogLevel)
        log.warning("log level is set", level=asked.level, prefix=asked.prefix)
        logs.set_level(asked.prefix, asked.level)
        return web.Response(status=204)

    async def report(request: web.Request) -> web.Response:
        return _json({"report": state_report.made()})

    return [web.get("/v1/log", get_log), web.put("/v1/log", set_log), web.get("/v1/state-report", report)]


async def _body(request: web.Request, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as failure:
        wrong = failure.errors(include_url=False, include_input=False, include_context=False)[:3]
        told = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in wrong)
        raise BadRequest(reason=told) from None


def _key(request: web.Request) -> str:
    info = request.match_info
    return f"{info['operation']}/{info['step']}/{info['attempt']}"


def _seconds(request: web.Request) -> float:
    try:
        return max(0.0, min(float(request.query.get("wait", 0)), MAX_WAIT_S))
    except ValueError:
        raise BadRequest(reason="wait is not a number of seconds") from None


def _number(request: web.Request, name: str, default: int) -> int:
    try:
        return int(request.query.get(name, default))
    except ValueError:
        raise BadRequest(reason=f"{name} is not a whole number") from None


def _model(model: BaseModel, status: int = 200) -> web.Response:
    return web.Response(body=model.model_dump_json().encode(), status=status, content_type="application/json")


def _rows(field: str, rows: Any) -> web.Response:
    return _json({field: [row.model_dump(mode="json") for row in rows]})


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), status=status, content_type="application/json")


def _error(error: BrickyardError) -> web.Response:
    response = _json({"error": error.to_body()}, error.status)
    if getattr(error, "retry_after", None):
        response.headers["Retry-After"] = str(max(1, round(getattr(error, "retry_after", 1.0))))
    return response
