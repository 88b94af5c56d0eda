"""The privileged daemon that `agent.privsep.door` wakes: `python3 -I -m agent.privsep.daemon` and what root settled.

Its arguments: context, descriptors of the channel and of its sign of life, log level, limits, the limits' file.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from agent.base.errors import BrickyardError
from agent.privsep import limits, noeventlet


def main() -> None:
    """Drop all but the context's capabilities, then serve it until the agent closes the channel."""
    noeventlet.block()
    from oslo_privsep import comm
    from oslo_privsep import daemon as library

    from agent.privsep import contexts

    name, channel_fd, life, level, allowed, file = sys.argv[1:]
    for fd in (int(channel_fd), int(life)):
        os.set_inheritable(fd, False)  # no tool is to hold them
    limits.use(limits.from_text(allowed), Path(file) if file else None)
    with suppress(BrickyardError):
        limits.again()  # it may have been asleep for long; a file that is refused leaves what root had read
    context = contexts.BY_NAME[name]
    channel = comm.ServerChannel(socket.socket(fileno=int(channel_fd)))
    logging.getLogger().setLevel(int(level))
    library.replace_logging(library.PrivsepLogHandler(channel, processName=str(context)))
    library.Daemon(channel, context=context).run()


if __name__ == "__main__":
    main()
