"""What is wrong with back ends and with a changed configuration, as issues of the host."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.wire.results import HostIssue

if TYPE_CHECKING:
    from agent.backends.base import Trouble
    from agent.jobs.watching import Trouble as DeviceTrouble

_DEVICES = {
    "changed": (
        "The device is not what was attached",
        "Stop what uses it; look at what its target offers now; then detach it and attach it again.",
    ),
    "path": (
        "Not every path works",
        "It is tried again by itself; look at the network or fabric, and at the target (`brickyard-agent explain`).",
    ),
}


def of_backend(name: str, trouble: Trouble) -> HostIssue:
    """One trouble of the back end of that name."""
    return HostIssue(
        code=trouble.code,
        resource=name,
        message=trouble.message,
        remedy=trouble.remedy,
        since=datetime.fromtimestamp(trouble.since, UTC).isoformat(timespec="seconds"),
    )


def of_device(trouble: DeviceTrouble) -> HostIssue:
    """What is wrong with a device that is in use."""
    about, remedy = _DEVICES[trouble.what]
    return HostIssue(
        code=f"attachment.{trouble.what}",
        resource=trouble.attachment_id,
        message=f"{about} of volume {trouble.volume_id}: {'; '.join(trouble.reasons)}.",
        remedy=remedy,
        since=datetime.fromtimestamp(trouble.since, UTC).isoformat(timespec="seconds"),
    )


def config_issues(refused: str) -> list[HostIssue]:
    """Of a configuration that was refused for this reason; none where it was not."""
    if not refused:
        return []
    return [
        HostIssue(
            code="config.refused",
            resource="agent",
            message=f"The changed configuration was refused, the old one is in force: {refused}",
            remedy="Correct it (brickyard-agent config check), then reload: systemctl reload brickyard-agent",
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    ]
