"""Run on a simulated kernel: privileged verbs in this process, within limits of the test's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent.host import kernel
from agent.host.simulator import SimulatedKernel
from agent.privsep import client, limits
from agent.privsep.contexts import channel, net


@contextmanager
def running_on(
    simulated: SimulatedKernel, channel_devices: Sequence[str] = (), array_ports: Sequence[str] = ()
) -> Iterator[None]:
    before, mode = kernel.current(), client.mode()
    kernel.use(simulated)
    limits.use(limits.with_array_ports(limits.with_bus_ids(limits.Limits(), channel_devices), array_ports))
    for context in (channel, net):
        context.set_client_mode(False)
    client.set_mode("direct")
    try:
        yield
    finally:
        kernel.use(before)
        limits.use(limits.Limits())
        for context in (channel, net):
            context.set_client_mode(True)
        client.set_mode(mode)
