"""The privileged daemon as sudo and oslo.rootwrap start it: `python3 -I -m agent.privsep.helper`."""

from __future__ import annotations

from agent.privsep import noeventlet


def main() -> None:
    """Serve one context until the agent closes the socket; options are oslo.privsep's own."""
    noeventlet.block()
    from oslo_privsep import daemon

    daemon.helper_main()


if __name__ == "__main__":
    main()
