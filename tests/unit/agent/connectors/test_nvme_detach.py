"""A detach leaves nothing of a connect that nobody waits for any more, although the kernel shows nothing of it yet."""

from __future__ import annotations

from typing import Any

import pytest

from agent.connectors import nvme as connectors
from agent.connectors.errors import DetachIncomplete
from agent.connectors.nvme import NvmeConnector
from agent.host import nvme
from agent.privsep import nvme as verbs
from agent.privsep.errors import KernelRefused, PrivilegeUnavailable
from tests.unit.agent.connectors.test_nvme_reading import CONNECTION


class Asked:
    """Privileged calls, each answered alike."""

    def __init__(self, answer: bool | Exception) -> None:
        self.answer, self.calls = answer, list[tuple[Any, ...]]()

    async def __call__(self, *call: Any) -> bool:
        self.calls.append(call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def asked(monkeypatch: pytest.MonkeyPatch, answer: bool | Exception, *, available: bool = True) -> Asked:
    made = Asked(answer)
    monkeypatch.setattr(connectors, "call", made)
    monkeypatch.setattr(nvme, "subsystem", lambda target: None)
    monkeypatch.setattr(nvme, "available", lambda: available)
    return made


@pytest.mark.parametrize("made", [True, False])
async def test_it_waits_for_the_targets_lock(made: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told = asked(monkeypatch, made)
    assert await NvmeConnector().detach(CONNECTION) is made
    assert told.calls == [(verbs.nvme_disconnect, CONNECTION.target)]


async def test_a_connect_that_does_not_end_is_not_told_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, KernelRefused(action="lock", device=CONNECTION.target, reason="another connect does not end"))
    with pytest.raises(DetachIncomplete, match="does not end"):
        await NvmeConnector().detach(CONNECTION)


async def test_who_can_not_connect_has_nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asked(monkeypatch, True, available=False)
    assert not await NvmeConnector().detach(CONNECTION)
    assert not told.calls
    asked(monkeypatch, PrivilegeUnavailable(verb="nvme_disconnect", reason="none"))
    assert not await NvmeConnector().detach(CONNECTION)
