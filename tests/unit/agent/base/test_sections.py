from __future__ import annotations

from pathlib import Path

from agent.base import faults
from agent.base.sections import TestingConfig


def test_a_fault_point_is_recorded_and_disarmed(tmp_path: Path) -> None:
    faults.declare("test.sections")
    TestingConfig(fault_record=tmp_path / "passed").apply()
    faults.fault_point("test.sections")
    faults.arm(None)
    faults.fault_point("test.sections")
    assert (tmp_path / "passed").read_text() == "test.sections\n"
