"""What keeps a coordinator from starting."""

from __future__ import annotations

from agent.base.errors import Permanent


class PortTaken(Permanent):
    code = "coordinator.port-taken"
    exit_code = 69
    sentence = "The {purpose} port {address}:{port} can not be listened on: {reason}."
    hint = "Choose another with {key}, or stop what uses it."
