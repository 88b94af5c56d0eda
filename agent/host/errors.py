"""What can go wrong when a tool of the host is run or a resource of the host is locked."""

from __future__ import annotations

from agent.base.errors import Permanent, Temporary


class ToolMissing(Permanent):
    """An outside program is not installed in any of the fixed folders."""

    code = "tool.missing"
    status = 500
    sentence = "The program {tool} is not installed on this host (looked in {folders})."
    hint = "Install the package {package}."


class ToolFailed(Permanent):
    """A tool ended with a status that does not mean success; `stderr` is its last words."""

    code = "tool.failed"
    status = 500
    sentence = "{command} ended with {ending}: {stderr}"
    hint = "Run `brickyard-agent doctor` on the host; the words after the colon are the tool's own."


class ToolTimeout(Temporary):
    """A tool did not end in its time and was killed. Callers look at the host before they run it again."""

    code = "tool.timeout"
    retry_after = 5.0
    sentence = "{command} did not end within {timeout:g} s and was stopped. {stderr}"
    hint = "It is tried again; if that keeps happening, look for a stalled disk or a busy host."


class ToolStuck(ToolTimeout):
    """A tool outlived SIGKILL: it waits inside the kernel, and keeps its resource locked until it is gone."""

    code = "tool.stuck"
    retry_after = 30.0
    sentence = "{command} (process {pid}) hangs inside the kernel and could not be killed. {stderr}"
    hint = "A device below it does not answer; see the kernel log. Its resource stays locked until it ends."


class ResourceBusy(Temporary):
    """A lock on a resource of this host was not free in time."""

    code = "host.busy"
    retry_after = 5.0
    sentence = "{name} is still in use by another task or by a tool of an earlier one (waited {waited:g} s)."
    hint = "It is tried again; `brickyard-agent jobs` shows what holds it."
