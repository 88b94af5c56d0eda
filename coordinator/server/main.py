"""`brickyard-coordinator`: the service, and the commands on its state directory."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from agent.base import environment, lean, sdnotify, state_report
from agent.base.log import get_logger
from agent.base.reload import Reloads
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.start import Opened, open_state
from coordinator.server.wiring import Coordinator, build

log = get_logger(__name__)
Ready = Callable[[Coordinator], None]


def run_coordinator(
    settings: CoordinatorSettings,
    on_ready: Ready | None = None,
    reread: Callable[[], Awaitable[CoordinatorSettings]] | None = None,
) -> int:
    """Run in this process until SIGTERM or SIGINT; returns the exit code. Raises what keeps it from starting.

    `reread` gives the configuration as it is now, for SIGHUP.
    """
    settings.log.apply()
    settings.testing.apply()
    state_report.on_signal(settings, settings.log.report_dir)
    os.umask(0o077)
    opened = open_state(settings)
    return asyncio.run(_serve(settings, opened, on_ready, reread))


async def _serve(
    settings: CoordinatorSettings, opened: Opened, on_ready: Ready | None,
    reread: Callable[[], Awaitable[CoordinatorSettings]] | None,
) -> int:  # fmt: skip
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    coordinator = build(settings, opened)
    await coordinator.start()
    reloads = Reloads(lambda: coordinator.reload(reread)) if reread is not None else None
    if reloads is not None:
        loop.add_signal_handler(signal.SIGHUP, reloads.asked)
    lean.settled()
    log.info("coordinator serves", port=coordinator.port, enrolment_port=coordinator.listener.port)
    sdnotify.ready(f"serving on port {coordinator.port}")
    if on_ready is not None:
        on_ready(coordinator)
    alive = asyncio.create_task(sdnotify.watchdog(stop))
    await stop.wait()
    sdnotify.stopping()
    await coordinator.stop()
    await alive
    return 0


def main() -> None:
    """The console command."""
    environment.check()
    from agent.base.terminal.entry import run
    from coordinator.cli.service import service

    run(service, "brickyard-coordinator")
