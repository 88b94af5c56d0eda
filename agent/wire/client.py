"""The coordinator's client of one agent: typed calls over a `Transport` (ARCHITECTURE §5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from agent.base.errors import BrickyardError, NotFound
from agent.wire import readable
from agent.wire.errors import BadAnswer
from agent.wire.jobs import JobRequest, JobStatus, Wire
from agent.wire.results import (
    ForeignItem,
    HostAttachment,
    HostExport,
    HostFacts,
    HostIssue,
    InventoryVolume,
    Pool,
    Report,
)
from agent.wire.tls import TlsIdentity, host_role
from agent.wire.transport import HttpTransport, Transport

Model = TypeVar("Model", bound=Wire)
_SLACK_S = 10.0


class AgentClient:
    """Calls of one agent. Every call raises the agent's own errors, `Undelivered` or `OutcomeUnknown`.

    Each may be repeated: a job's key makes it one job. Use from one event loop; `close()` at the end.
    """

    __slots__ = ("_transport", "name", "refusal")

    def __init__(self, transport: Transport, name: str = "agent") -> None:
        self._transport = transport
        self.name = name
        self.refusal: BrickyardError | None = None
        """Why it gets no work, though it answers."""

    @classmethod
    def https(cls, name: str, address: str, port: int, identity: TlsIdentity) -> AgentClient:
        """Over mutual TLS to the host `name`, whose certificate must say so."""
        return cls(HttpTransport(address, port, host_role(name), identity), name)

    async def post_job(self, request: JobRequest, wait_s: float = 0) -> JobStatus:
        """Hand a job over; with `wait_s` the answer comes when it is terminal, or after that many seconds."""
        if self.refusal is not None:
            raise self.refusal
        query = {"wait": wait_s} if wait_s else None
        answer = await self._transport.call(
            "POST", "/v1/jobs", query=query, body=request.body(), timeout=wait_s + _SLACK_S
        )
        return self._read(JobStatus, answer)

    async def get_job(self, key: str, wait_s: float = 0, after: int | None = None) -> JobStatus:
        """State of a job; waits up to `wait_s` for a change past sequence number `after`. `NotFound` if unknown."""
        query: dict[str, float | int] = {}
        if wait_s:
            query["wait"] = wait_s
        if after is not None:
            query["after"] = after
        answer = await self._transport.call("GET", f"/v1/jobs/{key}", query=query, timeout=wait_s + _SLACK_S)
        return self._read(JobStatus, answer)

    async def cancel(self, key: str, epoch: int) -> JobStatus:
        """Cancel; a key the agent never saw becomes a tombstone, so that a late POST of it is refused."""
        return self._read(JobStatus, await self._transport.call("DELETE", f"/v1/jobs/{key}", query={"epoch": epoch}))

    async def jobs(self) -> list[JobStatus]:
        """The newest thousand jobs, finished or not."""
        return self._rows(JobStatus, "jobs", await self._transport.call("GET", "/v1/jobs"))

    async def acknowledge(self, keys: Iterable[str]) -> None:
        """Let the agent drop these finished jobs."""
        await self._transport.call("POST", "/v1/jobs/acknowledge", body={"keys": list(keys)})

    async def report(self, have: str = "", timeout: float = 10.0) -> Report:
        """One poll; `have` is that of the last report (everything is told without). From older agents in parts."""
        try:
            query = {"have": have} if have else None
            answer = await self._transport.call("GET", "/v1/report", query=query, timeout=timeout)
        except NotFound:
            facts, found = await self.host(timeout), await self._pools(timeout)
            finished = tuple(job.key for job in await self.jobs() if job.terminal)
            told = Report(clock=facts.clock, host=facts, finished=finished)
        else:
            rows = answer.get("pools") if isinstance(answer, dict) else None
            told = self._read(Report, {**answer, "pools": None} if rows is not None else answer)
            if rows is None:
                return told
            found = readable.pools(self._list("pools", answer))
        return told.model_copy(update={"pools": found[0], "unread": found[1]})

    async def set_log(self, prefix: str, level: str) -> None:
        """The level of the loggers whose name begins with `prefix`, until the agent ends."""
        await self._transport.call("PUT", "/v1/log", body={"prefix": prefix, "level": level})

    async def get_log(self, prefix: str) -> dict[str, str]:
        """Levels by logger."""
        answer = await self._transport.call("GET", "/v1/log", query={"prefix": prefix})
        return {str(name): str(level) for name, level in dict(self._field("levels", answer)).items()}

    async def state_report(self) -> str:
        """What its threads and tasks are doing."""
        return str(self._field("report", await self._transport.call("GET", "/v1/state-report")))

    async def host(self, timeout: float = 10.0) -> HostFacts:
        return self._read(HostFacts, await self._transport.call("GET", "/v1/host", timeout=timeout))

    async def pools(self, timeout: float = 10.0) -> list[Pool]:
        """Those that can be understood."""
        return list((await self._pools(timeout))[0])

    async def _pools(self, timeout: float) -> tuple[tuple[Pool, ...], dict[str, str]]:
        return readable.pools(self._list("pools", await self._transport.call("GET", "/v1/pools", timeout=timeout)))

    async def inventory(self, timeout: float = 60.0) -> tuple[list[InventoryVolume], dict[str, str]]:
        """Everything that the back ends hold; and by name those that can not say now, with the reason."""
        answer = await self._transport.call("GET", "/v1/inventory", timeout=timeout)
        held = self._rows(InventoryVolume, "inventory", answer)
        away = answer.get("away", {})
        return held, {str(name): str(reason) for name, reason in away.items()} if isinstance(away, dict) else {}

    async def foreign(self, timeout: float = 30.0) -> list[ForeignItem]:
        """What the back ends could adopt; NotFound from an agent of before that."""
        answer = await self._transport.call("GET", "/v1/foreign", timeout=timeout)
        return self._rows(ForeignItem, "foreign", answer)

    async def attachments(self) -> list[HostAttachment]:
        return self._rows(HostAttachment, "attachments", await self._transport.call("GET", "/v1/attachments"))

    async def exports(self) -> list[HostExport]:
        return self._rows(HostExport, "exports", await self._transport.call("GET", "/v1/exports"))

    async def issues(self) -> list[HostIssue]:
        return self._rows(HostIssue, "issues", await self._transport.call("GET", "/v1/issues"))

    async def csr(self) -> str:
        """A fresh signing request (PEM) for the agent's present key."""
        return str(self._field("csr", await self._transport.call("POST", "/v1/identity/csr")))

    async def put_certificate(self, certificate: str, ca: str) -> None:
        """Install a renewed certificate chain and the CAs to trust (PEM); used for new connections at once."""
        body = {"certificate": certificate, "ca": ca}
        await self._transport.call("PUT", "/v1/identity/certificate", body=body)

    async def put_denied(self, serials: Sequence[str]) -> None:
        """Replace the agent's list of refused certificate serials (lower-case hex)."""
        await self._transport.call("PUT", "/v1/identity/denied", body={"serials": list(serials)})

    async def metrics(self) -> str:
        """The metrics page, as text."""
        return str(await self._transport.call("GET", "/metrics"))

    async def rest(self) -> None:
        """Let go of connections that nobody uses now; the next call makes one anew."""
        await self._transport.rest()

    async def close(self) -> None:
        await self._transport.close()

    def _read(self, model: type[Model], answer: Any) -> Model:
        try:
            return model.model_validate(answer)
        except ValidationError as error:
            raise self._bad(str(error.errors(include_url=False, include_input=False)[:1])) from None

    def _rows(self, model: type[Model], field: str, answer: Any) -> list[Model]:
        return [self._read(model, row) for row in self._list(field, answer)]

    def _list(self, field: str, answer: Any) -> list[Any]:
        rows = self._field(field, answer)
        if not isinstance(rows, list):
            raise self._bad(f"{field!r} is not a list")
        return rows

    def _field(self, field: str, answer: Any) -> Any:
        if not isinstance(answer, dict) or field not in answer:
            raise self._bad(f"{field!r} is missing")
        return answer[field]

    def _bad(self, reason: str) -> BadAnswer:
        return BadAnswer(peer=self.name, address="its control port", status=200, reason=reason)
