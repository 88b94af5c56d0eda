"""A decrypted device goes also when all that lies below it is lost; as long as that answers, it is flushed first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from agent.host import sysfs
from agent.privsep import crypt, devices, tool
from agent.privsep.contexts import crypt as context
from agent.privsep.errors import DeviceHeld, KernelRefused

IDENT = new_id()
NAME = f"brickyard-{IDENT}"


class Mapped:
    """The device as long as no tool has removed it; what was done, in order."""

    def __init__(self) -> None:
        self.there, self.answers, self.flushes, self.said = True, True, True, ""
        self.done: list[str] = []

    def device(self, title: str) -> sysfs.MapperDevice | None:
        return sysfs.MapperDevice("dm-7", title, "CRYPT-LUKS2-x", 1 << 20, ("sda",)) if self.there else None

    def flush(self, name: str) -> None:
        self.done.append(f"flush {name}")
        if not self.flushes:
            raise KernelRefused(action="flush", device=name, reason="Input/output error")

    def run(self, program: str, arguments: Sequence[str], **_: Any) -> tool.Ended:
        self.done.append(" ".join((program, *arguments)))
        self.there = bool(self.said)
        return tool.Ended(1 if self.said else 0, self.said)


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mapped]:
    made = Mapped()
    monkeypatch.setattr(sysfs, "mapper_device", made.device)
    monkeypatch.setattr(sysfs, "users_of", lambda name: ())
    monkeypatch.setattr(devices, "answers", lambda short: made.answers)
    monkeypatch.setattr(devices, "flush", made.flush)
    monkeypatch.setattr(tool, "run", made.run)
    context.set_client_mode(False)
    yield made
    context.set_client_mode(True)


def test_one_that_answers_is_flushed_and_closed(mapped: Mapped) -> None:
    assert crypt.crypt_close(IDENT)
    assert mapped.done == ["flush dm-7", f"cryptsetup close -- {NAME}"]
    assert not crypt.crypt_close(IDENT)


def test_what_can_not_be_written_out_is_told_and_stays(mapped: Mapped) -> None:
    mapped.flushes = False
    with pytest.raises(KernelRefused, match="flush"):
        crypt.crypt_close(IDENT)
    assert mapped.there


def test_one_whose_paths_are_lost_goes_without(mapped: Mapped) -> None:
    mapped.answers = False
    assert crypt.crypt_close(IDENT)
    assert mapped.done == [f"dmsetup remove -- {NAME}"]


def test_one_that_somebody_has_open_is_held(mapped: Mapped) -> None:
    mapped.answers, mapped.said = False, "device-mapper: remove ioctl failed: Device or resource busy"
    with pytest.raises(DeviceHeld, match="busy"):
        crypt.crypt_close(IDENT)
