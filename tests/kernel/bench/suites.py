"""Tests that live elsewhere and show more on this kernel: with device-mapper, with udevd."""

from __future__ import annotations

ELSEWHERE = (
    "tests/integration/agent/test_local_attach.py",
    "tests/integration/agent/test_jobs_attach.py",
)
