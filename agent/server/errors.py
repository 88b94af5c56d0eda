"""What can keep an agent from starting or answering."""

from __future__ import annotations

from agent.base.errors import Invalid, NotFound, Permanent


class AgentRunning(Permanent):
    code = "agent.running"
    status = 409
    exit_code = 5
    sentence = "Another agent (process {pid}) uses the state directory {path}."
    hint = "Stop it first, or give this one a state directory of its own."


class WrongName(Permanent):
    code = "agent.wrong-name"
    exit_code = 78
    sentence = "This host is enrolled as {enrolled}, but its configuration says {configured}."
    hint = "Set agent.host to {enrolled}, or enrol the host anew under its other name."


class NoBackEndLeft(Invalid):
    """A file that was emptied to be written anew reads like one of a host without volumes."""

    code = "config.no-back-end"
    sentence = "The configuration names no back end any more; this agent serves {names}."
    hint = "Write the file whole, then reload. To serve none from now on, restart the agent."


class PortTaken(Permanent):
    code = "agent.port-taken"
    exit_code = 69
    sentence = "The {purpose} port {address}:{port} can not be listened on: {reason}."
    hint = "Choose another with {key}, or stop what uses it."


class NoSuchRoute(NotFound):
    code = "wire.no-such-call"
    sentence = "There is no call {method} {path}."
    hint = "Check that coordinator and agent are at most one release apart."


class BadRequest(Invalid):
    code = "wire.bad-request"
    sentence = "The request can not be read: {reason}."
    hint = "Check that coordinator and agent are at most one release apart."
