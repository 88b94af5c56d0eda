"""What administrators do with running services: log levels (3.32), reports, freezing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from sqlalchemy import Connection

from agent.base import log as logs
from agent.base import state_report
from agent.base.errors import BrickyardError, NotFound, Permanent
from agent.base.log import get_logger
from coordinator.api.acting import site_changed
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, Since
from coordinator.api.route import Resource, get, put
from coordinator.api.services import Services
from coordinator.operations.engine import Engine
from coordinator.state import clusters
from coordinator.state import services as state

_log = get_logger(__name__)
_API, _SCHEDULER, _VOLUME, _BACKUP = "cinder-api", "cinder-scheduler", "cinder-volume", "cinder-backup"
_BINARIES = ("", "*", _API, _SCHEDULER, _VOLUME, _BACKUP)
_ASK_S = 10.0
_CLUSTERS = 26
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def _text(value: Any) -> Any:
    return "" if value is None else value


Words = Annotated[str, BeforeValidator(_text), Field(max_length=255)]


class LogBody(Body):
    """Empty or `*` means every service; `server` is a host (or `HOST@BACKEND`), `prefix` how a logger's name begins."""

    binary: Words = ""
    server: Words = ""
    prefix: Words = ""
    level: Words = ""


class LevelsAnswer(Answer):
    binary: str
    host: str
    levels: dict[str, str]


class LogAnswer(Answer):
    log_levels: list[LevelsAnswer]


class FreezeBody(Body):
    """One of both; before 3.26 a host alone."""

    host: Annotated[str | None, Field(min_length=1, max_length=255)] = None
    cluster: Annotated[str | None, Since(_CLUSTERS), Field(max_length=255)] = None


class FailoverBody(FreezeBody):
    backend_id: Annotated[str | None, Field(max_length=255)] = None


class NotReplicated(Permanent):
    code = "service.not-replicated"
    status = 400
    sentence = "Unable to failover: back end {host} has no replication target."
    hint = "This release replicates nothing; to leave a host that is lost see: brickyard host evict --dry-run HOST."


class ReportAnswer(Answer):
    host: str
    text: str


Asked = Callable[[Any], Coroutine[Any, Any, Any]]


async def _of_agents(services: Services, server: str, asked: Asked) -> list[tuple[str, Any]]:
    """What each agent that answers says; those that do not, or hang, are left out."""

    async def one(name: str, client: Any) -> tuple[str, Any] | None:
        try:
            return name, await asyncio.wait_for(asked(client), _ASK_S)
        except (BrickyardError, TimeoutError) as error:
            _log.info("an agent did not answer", host=name, reason=str(error))
            return None

    agents, wanted = services.get(Engine).agents, server.partition("@")[0]
    rows = await services.db.read(state.backends)
    up = sorted({row.host_id for row in rows if row.answers and wanted in {"", "*", row.host_id}})
    known = [(name, client) for name in up if (client := agents.client(name)) is not None]
    answers = await asyncio.gather(*(one(name, client) for name, client in known))
    return [answer for answer in answers if answer is not None]


def _checked(given: LogBody) -> tuple[bool, bool]:
    """Whether this process, and whether agents are meant; raises BadRequest."""
    if given.binary not in _BINARIES:
        raise BadRequest(reason=f"Invalid input for field/attribute binary. Value: {given.binary}. It is one of "
                         f"{', '.join(repr(name) for name in _BINARIES)}.")  # fmt: skip
    here = given.binary in {"", "*", _API, _SCHEDULER} and given.server in {"", "*", socket.gethostname()}
    return here, given.binary in {"", "*", _VOLUME, _BACKUP}


def _level(text: str) -> logs.Level:
    level = text.lower()
    if level not in {"debug", "info", "warning", "error"}:
        raise BadRequest(reason=f"Invalid input for field/attribute level. Value: {text}. It is one of DEBUG, INFO, "
                         "WARNING, ERROR.")  # fmt: skip
    return level  # type: ignore[return-value]


async def set_log(call: Call) -> None:
    """Until the process ends. Of several coordinators only the one that answers changes itself."""
    given = call.valid(LogBody)
    here, agents = _checked(given)
    level = _level(given.level)
    _log.warning("log level is set", level=level, prefix=given.prefix, server=given.server or "*",
                 binary=given.binary or "*", user=call.context.user_id)  # fmt: skip
    if here:
        logs.set_level(given.prefix, level)
    told = {
        "binary": given.binary or "*",
        "server": given.server or "*",
        "prefix": given.prefix,
        "level": level.upper(),
    }
    await call.services.db.write(lambda conn: site_changed(conn, call, ("services", "*"), "services.set_log", told))
    if agents:
        await _of_agents(call.services, given.server, lambda client: client.set_log(given.prefix, level))


async def get_log(call: Call) -> dict[str, Any]:
    given = call.valid(LogBody)
    here, agents = _checked(given)
    found = []
    if here:
        name = given.binary if given.binary in {_API, _SCHEDULER} else _API
        found.append({"binary": name, "host": socket.gethostname(), "levels": logs.levels(given.prefix)})
    if agents:
        told = await _of_agents(call.services, given.server, lambda client: client.get_log(given.prefix))
        found += [{"binary": _VOLUME, "host": host, "levels": levels} for host, levels in told]
    return {"log_levels": found}


async def freeze(call: Call) -> None:
    await _frozen(call, True)


async def thaw(call: Call) -> None:
    await _frozen(call, False)


async def _frozen(call: Call, frozen: bool) -> None:
    """What lies on a frozen back end stays as it is; attaching, detaching and what servers do with it go on."""
    host, cluster = _place(call, call.valid(FreezeBody))

    def change(conn: Connection) -> None:
        if cluster is not None:
            clusters.set_frozen(conn, cluster, frozen=frozen)
        else:
            state.set_frozen(conn, host, frozen=frozen)

    with _named(cluster):
        await call.services.db.write(change)


@contextmanager
def _named(cluster: str | None) -> Iterator[None]:
    """A host that is not there is a wrong word, while a cluster is not found: Cinder's clients know both so."""
    try:
        yield
    except NotFound as error:
        if cluster is not None:
            raise
        raise BadRequest(reason=str(error)) from None


def _place(call: Call, given: FreezeBody) -> tuple[str, str | None]:
    """The back end of a host, or the cluster, that is named: exactly one of both. Raises BadRequest."""
    if bool(given.host) == bool(given.cluster):
        both = call.version >= _CLUSTERS
        raise BadRequest(
            reason="One and only one of cluster and host must be set." if both else "Host field is missing."
        )
    return given.host or "", given.cluster or None


async def failover(call: Call) -> None:
    """Refused with its reason: there is nowhere to go."""
    host, cluster = _place(call, call.valid(FailoverBody))

    def known(conn: Connection) -> None:
        if cluster is not None:
            clusters.get(conn, cluster)
        else:
            state.check_known(conn, host)

    with _named(cluster):
        await call.services.db.read(known)
    raise NotReplicated(host=cluster or host)


async def report(call: Call) -> dict[str, Any]:
    """Of this coordinator, or of the agent of a host."""
    name = call.query.get("host")
    if not name:
        return {"host": socket.gethostname(), "text": state_report.made()}
    client = call.services.get(Engine).agents.client(name)
    if client is None:
        raise NotFound(noun="Host", id=name[:64])
    return {"host": name, "text": await client.state_report()}


def resources() -> tuple[Resource, ...]:
    """The routes."""
    return (
        Resource(
            "service_actions",
            "Running services: log levels, freezing.",
            (
                put("/os-services/set-log", set_log, "volume_extension:services:update",
                    "Set the level of loggers, until the process ends.", body=LogBody, status=202, since=32),
                put("/os-services/get-log", get_log, "volume_extension:services:update",
                    "Levels of loggers, of every service that answers.", body=LogBody, answer=LogAnswer, since=32),
                put("/os-services/freeze", freeze, "volume:freeze_host",
                    "Let what lies on a back end or cluster stay as it is.", body=FreezeBody),
                put("/os-services/thaw", thaw, "volume:thaw_host", "Let it be changed again.", body=FreezeBody),
                put("/os-services/failover_host", failover, "volume:failover_host",
                    "Refused: no back end is replicated.", body=FailoverBody, status=202),
                put("/os-services/failover", failover, "volume:failover_host",
                    "Refused: no back end is replicated.", body=FailoverBody, status=202, since=26),
            ),
        ),
        Resource(
            "state_reports",
            "Reports of running processes.",
            (
                get("/state-report", report, "brickyard:hosts:report",
                    "What the threads and tasks of this coordinator, or of a host's agent, are doing.",
                    answer=ReportAnswer, answer_key="report", query=("host",)),
            ),
            prefix="/brickyard/v1",
        ),
    )  # fmt: skip
