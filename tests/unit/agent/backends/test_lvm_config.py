"""Tables of LVM back ends: by driver, with names that LVM can use, never two on one place."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.backends.config import FileBackendConfig, LvmBackendConfig
from agent.backends.lvm import LvmBackend
from agent.backends.opening import opened
from agent.server.settings import AgentSettings


def settings(**backends: dict[str, object]) -> AgentSettings:
    return AgentSettings.model_validate({"backends": backends})


def test_the_driver_says_which_kind_it_is(tmp_path: Path) -> None:
    read = settings(
        files={"path": str(tmp_path)}, thick={"driver": "lvm", "group": "vg0"},
        thin={"driver": "lvm", "group": "vg0", "pool": "pool"},
    )  # fmt: skip
    assert isinstance(read.backends["files"], FileBackendConfig)
    assert isinstance(read.backends["thin"], LvmBackendConfig)
    assert read.folders == {"files": tmp_path}
    assert read.groups == ("vg0",)
    backend = opened("thin", read.backends["thin"])
    assert isinstance(backend, LvmBackend)
    assert backend.name == "thin"


@pytest.mark.parametrize(
    "table",
    [
        {"driver": "lvm"},
        {"driver": "lvm", "group": "-v"},
        {"driver": "lvm", "group": "a/b"},
        {"driver": "lvm", "group": "vg0", "pool": "byv-00000000-0000-4000-8000-000000000000"},
        {"driver": "lvm", "group": "vg0", "path": "/x"},
        {"driver": "lvm", "group": "vg0", "pool": "p", "autoextend_percent": 95},
        {"driver": "zfs", "group": "vg0"},
        {"group": "vg0"},
    ],
)
def test_what_can_not_be_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings(one=table)


@pytest.mark.parametrize("pool", [None, "pool"])
def test_two_back_ends_never_share_a_place(pool: str | None) -> None:
    table = {"driver": "lvm", "group": "vg0", "pool": pool}
    with pytest.raises(ValidationError, match="share vg0"):
        settings(one=table, two=table)
