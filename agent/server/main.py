"""The life of an agent process: privileged daemons first, then an ordinary user, then the event loop.

Order: settings, imports, folders, daemons (started before any thread), drop of root, journal, resume, listeners, READY.
SIGTERM and SIGINT stop it gracefully; a privileged daemon that dies ends the agent, so that it is started anew.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from agent.base import lean, sdnotify, state_report
from agent.base.log import get_logger
from agent.base.reload import Reloads
from agent.jobs.registry import LATE_MODULES
from agent.privsep import account as accounts
from agent.privsep import start as privsep
from agent.server.prepare import lock_state, make_folders
from agent.server.settings import AgentSettings
from agent.server.wiring import Agent
from agent.targets import registry

log = get_logger(__name__)
EXIT_OK, EXIT_DAEMON_LOST = 0, 70


def run_agent(
    settings: AgentSettings,
    *,
    roots: Sequence[Path] | None = None,
    dev: bool = False,
    on_ready: Callable[[], None] | None = None,
    reread: Callable[[], Awaitable[AgentSettings]] | None = None,
) -> int:
    """Run an agent in this process until it is told to stop; returns the exit code.

    Call it from a process without threads and without an event loop. `roots` are the folders that privileged verbs
    may use where root says so itself (dev, demo); else the limits file says it. `dev` drops to `nobody` where there
    is no user of ours. `reread` gives the configuration as it is now, for SIGHUP.
    Raises what keeps it from starting (AccountInvalid, AgentRunning, IdentityMissing, PortTaken…).
    """
    settings.log.apply()
    settings.testing.apply()
    state_report.on_signal(settings, settings.log.report_dir)
    os.umask(0o077)
    # Secrets are in memory, here, in the daemons and in the tools: none of them may leave them in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    targets = registry.targets(settings.targets)
    account = accounts.choose(settings.privsep.user, dev=dev) if os.geteuid() == 0 else None
    make_folders(settings, account)
    granted = privsep.enter(
        settings.state_dir,
        user=settings.privsep.user,
        dev=dev,
        late=(*LATE_MODULES, "agent.server.keys"),
        limits_file=settings.privsep.limits_file,
        roots=roots,
        groups=settings.groups if roots is not None else (),
        ceph=bool(settings.work_dirs),
        modules=[
            *(module for target in targets.values() for module in target.modules),
            *(("rbd",) if settings.connectors.maps_images else ()),
        ],
    )
    lock = lock_state(settings.state_dir)
    try:
        log.info("privileges", mode=granted.mode, contexts=list(granted.contexts), reason=granted.reason or None)
        return asyncio.run(_serve(settings, on_ready, reread))
    finally:
        os.close(lock)


async def _serve(
    settings: AgentSettings, on_ready: Callable[[], None] | None, reread: Callable[[], Awaitable[AgentSettings]] | None
) -> int:
    stop, lost = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def daemon_ended(context: str) -> None:
        def note() -> None:
            if not stop.is_set():
                log.error("a privileged daemon ended; the agent ends, too", context=context)
                lost.set()
                stop.set()

        with suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(note)

    privsep.watch(daemon_ended)
    agent = Agent(settings)
    await agent.start()
    reloads = Reloads(lambda: agent.reload(reread)) if reread is not None else None
    if reloads is not None:
        loop.add_signal_handler(signal.SIGHUP, reloads.asked)
    lean.settled()
    sdnotify.ready(f"serving on port {settings.agent.port}")
    if on_ready is not None:
        on_ready()
    alive = asyncio.create_task(sdnotify.watchdog(stop))
    await stop.wait()
    sdnotify.stopping()
    await agent.stop()
    await alive
    return EXIT_DAEMON_LOST if lost.is_set() else EXIT_OK
