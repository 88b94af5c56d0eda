"""A real agent in a process of its own, on real ports with real certificates, to be killed and started again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from agent.wire.client import AgentClient
from agent.wire.errors import OutcomeUnknown, Undelivered
from agent.wire.jobs import JobArgs, JobStatus, WireSecret, request_for
from agent.wire.tls import COORDINATOR, TlsFiles, TlsIdentity, host_role
from coordinator.enrolment.ca import Authority, new_authority
from coordinator.enrolment.own import ensure_role
from tests.integration.agent.zygote import Forked, Zygote
from tests.support.ports import free_port

IMPORTS = """
from pathlib import Path
from agent.base.config import load
from agent.server.main import run_agent
from agent.privsep.limits import DEFAULT_FILE
from agent.server.settings import AgentSettings
import agent.connectors.local, agent.images.volume, agent.luks.blank, agent.wire.transfer
"""
BODY = """
    if request["uid"]:
        os.setgroups([]), os.setgid(request["uid"]), os.setuid(request["uid"])
    settings = load(AgentSettings, Path(request["config"]), request["sets"])
    roots = [*settings.roots, *settings.work_dirs.values()] if settings.privsep.limits_file == DEFAULT_FILE else None
    return run_agent(settings, roots=roots, dev=True, on_ready=lambda: os.write(ready, b"r"))
"""
_LATE = 10  # answers that a busy machine may owe


@cache
def zygote() -> Zygote:
    return Zygote(IMPORTS, BODY)


class Site:
    """A folder that any user can reach, a CA, and the coordinator's certificate."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="brickyard-test-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.authority = Authority(new_authority())
        self.coordinator = self.identity(COORDINATOR)

    def identity(self, role: str) -> TlsIdentity:
        folder = self.folder / "identities" / role.replace(":", "-")
        ensure_role(folder, self.authority, role)
        return TlsIdentity(TlsFiles.in_folder(folder))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class AgentProcess:
    """`await start()` until it serves; `kill()` as the kernel would; `stop()` as systemd would."""

    def __init__(self, site: Site, name: str = "host-a", store: bool = False) -> None:
        self.site, self.name = site, name
        self.state = site.folder / name
        self.volumes = self.state / "files"
        self.port, self.data_port = free_port(), free_port()
        self.process: Forked | None = None
        self.uid = 0
        self.log = site.folder / f"{name}.log"
        identity = self.state / "identity"
        ensure_role(identity, site.authority, host_role(name))
        (identity / "name").write_text(name)
        self.config = site.folder / f"{name}.toml"
        kept = f'store = "{self.state}/images"\n' if store else ""
        self.config.write_text(
            f'[agent]\nhost = "{name}"\nstate_dir = "{self.state}"\nlisten = "127.0.0.1"\n'
            f"port = {self.port}\ndata_port = {self.data_port}\nstop_grace_s = 2.0\n"
            f'[backends.files]\npath = "{self.volumes}"\n[jobs]\nlock_deadline_s = 20.0\n'
            f"[images]\npassphrase_iterations = 1000\n{kept}"
        )

    def limited(self, limits: str) -> None:
        """Start within these limits from now on, as root's own file says them, and not merely the agent's folders."""
        file = self.site.folder / f"{self.name}-limits.toml"
        file.write_text(limits)
        with self.config.open("a") as config:
            config.write(f'[privsep]\nlimits_file = "{file}"\n')

    def as_user(self, uid: int) -> None:
        """Start as this ordinary user from now on, who owns the agent's folders."""
        self.uid = uid
        for path in (self.state, *self.state.rglob("*")):
            os.chown(path, uid, uid)

    async def start(self, *sets: str) -> None:
        """Start it with `--set`-like overrides and wait until it is ready (or dies, which is raised)."""
        request = {"config": str(self.config), "sets": list(sets), "uid": self.uid}
        self.process, read = zygote().fork(request, self.log)
        try:
            ready = await asyncio.wait_for(asyncio.to_thread(os.read, read, 1), 120)
        finally:
            os.close(read)
        if ready != b"r":
            raise RuntimeError(f"the agent did not start:\n{self.log.read_text()[-3000:]}")

    async def died(self, seconds: float = 120) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, seconds)

    async def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            await self.died()

    async def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await self.died()

    @asynccontextmanager
    async def client(self, identity: TlsIdentity | None = None) -> AsyncIterator[AgentClient]:
        client = AgentClient.https(self.name, "127.0.0.1", self.port, identity or self.site.coordinator)
        try:
            yield client
        finally:
            await client.close()


async def finish(client: AgentClient, key: str, epoch: int, args: JobArgs, **secrets: WireSecret) -> JobStatus:
    """Post a job and follow it to its end; an answer that comes too late is asked for again, as a coordinator would."""
    status: JobStatus | None = None
    late = 0
    while status is None or not status.terminal:
        try:
            if status is None:
                status = await client.post_job(request_for(key, epoch, args, secrets), wait_s=10)
            else:
                status = await client.get_job(key, 10, status.seq)
        except (OutcomeUnknown, Undelivered):
            late += 1
            if late == _LATE:
                raise
    return status


async def persist(
    agent: AgentProcess, key: str, args: JobArgs, sets: Sequence[str], **secrets: WireSecret
) -> JobStatus:
    """Post a job to an agent that dies on it, start it anew, and go on as a coordinator would until the job ends."""
    await agent.start(*sets)
    request = request_for(key, 1, args, secrets)
    async with agent.client() as client:
        try:
            status = await client.post_job(request, wait_s=10)
            if status.terminal:
                await client.acknowledge([key])
        except (Undelivered, OutcomeUnknown):
            pass
    code = await agent.died()
    assert code == -signal.SIGKILL, f"exit {code}: {agent.log.read_text()[-2000:]}"
    await agent.start()
    async with agent.client() as client:
        return await finish(client, key, 1, args, **secrets)


def journal_text(agent: AgentProcess) -> str:
    """Everything in the journal's files, as text."""
    return "".join(path.read_bytes().decode("latin1") for path in agent.state.glob("journal.db*") if path.is_file())


def passed(path: Path) -> set[str]:
    return set(path.read_text().split()) if path.exists() else set()
