"""What all tests share: how they are spread over processes, and calm deadlines on busy machines."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("calm", deadline=None)
settings.register_profile("emulated", deadline=None, max_examples=10)
settings.load_profile("calm")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file in one process, and all tests that use devices of the host in the same one."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            name = "root" if item.get_closest_marker("root") else item.path.stem
            item.add_marker(pytest.mark.xdist_group(name))
