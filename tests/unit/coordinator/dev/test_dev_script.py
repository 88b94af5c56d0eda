"""The supervisor starts from bytecode only when that was made from the source as it is."""

from __future__ import annotations

import os
import py_compile
from pathlib import Path

import pytest

from coordinator.dev import main, supervisor


def test_stale_bytecode_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, compiled = tmp_path / "supervisor.py", tmp_path / "supervisor.pyc"
    source.write_text("A = 1\n")
    py_compile.compile(str(source), str(compiled))
    monkeypatch.setattr(supervisor, "__file__", str(source))
    monkeypatch.setattr(supervisor, "__cached__", str(compiled), raising=False)
    assert main._script() == str(compiled)
    source.write_text("A = 10\n")
    assert main._script() == str(source)
    source.write_text("A = 2\n")
    os.utime(source, (1, 1))
    assert main._script() == str(source)
    compiled.unlink()
    assert main._script() == str(source)
