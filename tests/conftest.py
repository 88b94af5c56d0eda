"""What all tests share: how they are spread over processes, and calm deadlines on busy machines."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("calm", deadline=None)
settings.register_profile("emulated", deadline=None, max_examples=10)
settings.load_profile("calm")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Commands that are run in this process keep their files to themselves; the sites of later tests need not."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


# What takes minutes begins first, so that no process is left alone with it at the end (with --no-loadscope-reorder).
LONG = (
    "test_ceph_encrypted_kills", "test_ceph_encrypted", "test_fault_points", "test_glance_story", "test_chaos",
    "test_luks_fuzz", "test_glance", "test_matrix", "test_encrypted_story", "test_barbican_site", "test_glance_volumes",
    "test_volume_conflicts_others", "test_demo_interrupted", "test_database_commands", "test_luks_slots",
    "test_tempest", "test_ceph_kills", "test_ceph_image_volumes", "test_ceph_site", "test_volume_actions",
    "test_two_coordinators", "test_rbd_backend", "test_barbican", "test_demo_hidden", "test_image_cache",
    "test_keystone", "test_schemathesis", "test_random_kills", "test_upgraded_under_load", "test_releases_together",
    "test_images_to_volume",
)  # fmt: skip


def pytest_xdist_auto_num_workers() -> int:
    """One more than processors: tests of whole sites wait for what begins and ends in between."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first. Each file stays in one process (--dist loadfile), so what its tests share is made once."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
