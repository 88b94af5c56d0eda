"""Errors come back from the daemon as `cls(*args)` after msgpack: they must be the same then."""

from __future__ import annotations

import inspect

import msgpack
import pytest

from agent.base.errors import BrickyardError
from agent.privsep import errors

CLASSES = [
    cls for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, BrickyardError) and cls.__module__ == errors.__name__
]  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_survives_the_wire(cls: type[BrickyardError]) -> None:
    first = cls(device="/dev/loop7", reason="why", holders="dm-0", action="x", verb="v", path="/p", user="u",
                program="x", target="iqn.x", portal="[::1]:3260", file="/f",
                pid=7, group="vg0", name="byv-1", devices="/dev/sda", what="session", volume="v1",
                image="volumes/byv-1")  # fmt: skip
    again = cls(*msgpack.unpackb(msgpack.packb(first.args), use_list=False))
    assert str(again) == str(first)
    assert again.remedy == first.remedy
    assert "<" not in str(first).replace("<seconds>", "").replace("<context>", "")
