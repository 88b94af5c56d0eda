"""What the tests of this folder share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent.images_to_volume.making import Images, Runner, clear_content


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    folder = tmp_path_factory.mktemp("images")
    yield Images(folder, folder / "source", clear_content(folder / "source"))
    shutil.rmtree(folder)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)
