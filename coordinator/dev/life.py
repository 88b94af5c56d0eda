"""How a child notices that its parent has ended, however that happened."""

from __future__ import annotations

import asyncio
import os
import signal


def end_with_parent(life_fd: int) -> None:
    """Stop this process gracefully when the parent's end of the pipe is closed; call inside the event loop."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(life_fd)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(life_fd, ended)
