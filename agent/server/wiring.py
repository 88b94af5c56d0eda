"""The parts of an agent put together: started in order, stopped in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from aiohttp import web

from agent.backends.kept import Backends
from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.base.release import RELEASE
from agent.base.reload import changes
from agent.connectors import registry as connectors
from agent.host.facts import boot_id
from agent.jobs.conversion import Conversion, Fetch
from agent.jobs.healing import Healing
from agent.jobs.journal import Journal
from agent.jobs.registry import KINDS
from agent.jobs.restoring import Restoring
from agent.jobs.runner import Runner, RunnerOptions
from agent.jobs.sealing import Sealer
from agent.jobs.services import Send, Services
from agent.jobs.watching import Watching
from agent.privsep.start import limits_again
from agent.server.app import make_app
from agent.server.errors import NoBackEndLeft, PortTaken, WrongName
from agent.server.identity import Identity
from agent.server.prepare import make_backend_folders
from agent.server.settings import AgentSettings
from agent.server.views import Views
from agent.targets import registry
from agent.targets.dataport import DataPort
from agent.wire.jobs import TransferRef

if TYPE_CHECKING:
    from agent.images.store import ImageStore

log = get_logger(__name__)
_SHUTDOWN_S = 2.0
_BACKLOG = 512


class Agent:
    """`await start()`, then it serves on both ports until `await stop()`."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.backends = Backends()
        self.refused = ""
        self._stack = AsyncExitStack()
        self._runner: Runner | None = None
        self._site: web.TCPSite | None = None

    async def start(self) -> None:
        """Journal, back ends, data port, unfinished jobs, control port. On failure all that was begun is ended."""
        try:
            await self._start()
        except BaseException:
            if self._runner is not None:
                await self._runner.stop(0)
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        """No new calls, quick jobs end, the rest is left to be resumed, then everything is closed."""
        if self._site is not None:
            await self._site.stop()
        if self._runner is not None:
            left = await self._runner.stop(self.settings.agent.stop_grace_s)
            log.info("jobs stopped", handed_back=left)
        await self._stack.aclose()

    async def reload(self, reread: Callable[[], Awaitable[AgentSettings]]) -> None:
        """Take over what may change while it runs; a configuration with a mistake changes nothing and is an issue."""
        log.info("configuration is read again")
        try:
            new = await reread()
            if self.settings.backends and not new.backends:
                raise NoBackEndLeft(names=", ".join(sorted(self.settings.backends)))
        except BrickyardError as error:
            self.refused = str(error)
            log.error("the configuration is refused, the old one stays", reason=self.refused)
            return
        found = changes(self.settings, new)
        kept = {
            name: getattr(self.settings, name)
            for name in type(new).model_fields
            if name not in {"log", "backends", "backend_defaults"}
        }
        self.settings, self.refused = new.model_copy(update=kept), ""
        new.log.apply()
        await asyncio.to_thread(make_backend_folders, self.settings)
        await asyncio.to_thread(limits_again)
        await self.backends.follow(new.backends)
        log.info("configuration reloaded", changed=list(found.taken), at_the_next_start=list(found.later) or None)

    async def _start(self) -> None:
        settings, stack = self.settings, self._stack
        identity = Identity.load(settings.identity_dir)
        if "host" in settings.agent.model_fields_set and identity.name != settings.agent.host:
            raise WrongName(enrolled=identity.name, configured=settings.agent.host)
        journal = Journal(settings.journal_file)
        await journal.open()
        stack.push_async_callback(journal.close)
        data_port = await self._open_data_port(identity)
        services = await self._services(identity, journal, data_port)
        options = RunnerOptions(
            lock_dir=settings.lock_dir,
            quick=settings.jobs.quick,
            heavy=settings.jobs.heavy,
            lock_deadline_s=settings.jobs.lock_deadline_s,
            boot_id=services.boot_id,
        )
        self._runner = runner = Runner(journal, KINDS, services, options)
        resumed = await runner.start()
        restoring = Restoring(services, runner.hold)
        stack.push_async_callback(restoring.stop)
        if services.targets:
            restoring.start()
        healing = Healing(services, runner.hold)
        stack.push_async_callback(healing.stop)
        healing.start()
        watching = Watching(services)
        stack.push_async_callback(watching.stop)
        watching.start()
        views = Views(
            services,
            runner,
            RELEASE,
            refused=lambda: self.refused,
            keeps_images=services.images is not None,
            certificate=identity.tls.files.certificate,
            restoring=restoring,
            healing=healing,
            watching=watching,
        )
        await self._open_control_port(make_app(runner, views, identity), identity)
        log.info("agent serves", host=identity.name, port=settings.agent.port, resumed=resumed)

    async def _services(self, identity: Identity, journal: Journal, data_port: DataPort) -> Services:
        settings = self.settings
        self._stack.callback(self.backends.close)
        await self.backends.follow(settings.backends)
        connectors.configure(settings.connectors)
        return Services(
            host=identity.name,
            journal=journal,
            backends=self.backends,
            away=self.backends.away,
            boot_id=boot_id(),
            rate_limit=settings.jobs.rate_limit,
            passphrase_iterations=settings.images.passphrase_iterations,
            conversion=await asyncio.to_thread(self._conversion, identity),
            images=await asyncio.to_thread(self._image_store),
            data_port=data_port,
            send=_sender(identity),
            targets=registry.targets(settings.targets, settings.agent.address),
            sealer=Sealer(settings.host_key_file),
        )

    def _conversion(self, identity: Identity) -> Conversion:
        from agent.images.spool import MemorySpool, Spool

        config = self.settings.images
        spool = Spool(self.settings.spool_dir, config.spool_max_bytes)
        removed = spool.open()
        if removed:
            log.info("half-fetched images removed", files=removed)
        return Conversion(spool, MemorySpool(config.memory_spool_bytes), config, _fetcher(identity))

    def _image_store(self) -> ImageStore | None:
        if self.settings.images_dir is None:
            return None
        from agent.images.store import ImageStore

        store = ImageStore(self.settings.images_dir, self.settings.images.limits())
        store.open()
        return store

    async def _open_data_port(self, identity: Identity) -> DataPort:
        section = self.settings.agent
        port = DataPort(identity.tls, section.listen, section.data_port)
        self._stack.push_async_callback(port.close)
        try:
            await port.start()
        except OSError as error:
            raise PortTaken(
                purpose="data", address=section.listen, port=section.data_port, reason=error.strerror or str(error),
                key="agent.data_port",
            ) from error  # fmt: skip
        return port

    async def _open_control_port(self, app: web.Application, identity: Identity) -> None:
        section = self.settings.agent
        served = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S)
        await served.setup()
        self._stack.push_async_callback(served.cleanup)
        context = identity.tls.server_context()
        self._site = web.TCPSite(served, section.listen, section.port, ssl_context=context, backlog=_BACKLOG)
        try:
            await self._site.start()
        except OSError as error:
            self._site = None
            raise PortTaken(
                purpose="control", address=section.listen, port=section.port, reason=error.strerror or str(error),
                key="agent.port",
            ) from error  # fmt: skip


def _sender(identity: Identity) -> Send:
    async def send(ref: TransferRef, blocks: AsyncIterator[bytes], size: int, tell: Callable[[int], None]) -> int:
        from agent.wire import transfer

        return await transfer.push(ref, identity.tls, blocks, total=size, progress=lambda done, _total: tell(done))

    return send


def _fetcher(identity: Identity) -> Fetch:
    async def fetch(ref: TransferRef, fd: int, max_bytes: int, tell: Callable[[int], None]) -> int:
        from agent.wire import transfer

        return await transfer.fetch(
            ref, identity.tls, fd, max_bytes=max_bytes, progress=lambda done, _total: tell(done)
        )

    return fetch
