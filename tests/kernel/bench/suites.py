"""Tests that live elsewhere and show more on this kernel: with device-mapper, with udevd."""

from __future__ import annotations

# On a big-endian processor what matters is whether bytes of headers, ioctls and wire formats are read right.
ELSEWHERE_S390X = (
    "tests/unit/agent/luks",
    "tests/unit/agent/images",
    "tests/unit/agent/host",
    "tests/integration/agent/test_local_attach.py",
)
ELSEWHERE = (
    "tests/integration/agent/test_local_attach.py",
    "tests/integration/agent/test_jobs_attach.py",
)
