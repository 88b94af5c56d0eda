"""Tables that both configuration files have."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from agent.base import faults, log
from agent.base.config import Section


class LogConfig(Section):
    """`[log]`"""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="Form of a line; `auto` is JSON where the systemd journal reads, else readable text."
    )
    report_dir: Path | None = Field(
        None, description="Folder for the reports of SIGUSR2; default, and where it can not be written: standard error."
    )

    steps_file: Path | None = Field(
        None,
        description="File for a line of each step of each operation, with its result (a coordinator has these); "
        "default, and where it can not be written: with the others, at level debug.",
    )

    def apply(self) -> None:
        """Make it so for this process, on stderr."""
        log.configure(
            self.level, json=None if self.format == "auto" else self.format == "json", steps_file=self.steps_file
        )


class TestingConfig(Section):
    """`[testing]`: never set these on a system that holds data."""

    __test__ = False

    fault: str | None = Field(
        None,
        description="Kill this process at the named fault point; `NAME@N` the Nth time that it is passed; `!NAME` "
        "stops it there instead.",
    )
    fault_record: Path | None = Field(None, description="File to which the name of each passed fault point is added.")

    def apply(self) -> None:
        """Arm the fault point in this process."""
        if self.fault or self.fault_record:
            faults.arm(self.fault, self.fault_record)
