"""`[backend_defaults]`: what is said once for all back ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.base.config import ConfigError, load
from agent.server.settings import AgentSettings


def read(folder: Path, text: str) -> AgentSettings:
    file = folder / "agent.toml"
    file.write_text(text)
    return load(AgentSettings, file)


def test_a_back_ends_own_table_wins_even_with_what_is_the_default_anyway(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        [backend_defaults]
        max_over_subscription = 10
        capabilities = { media = "ssd", rack = 4 }
        autoextend_percent = 60
        [backends.a]
        path = "/a"
        max_over_subscription = 50
        [backends.b]
        path = "/b"
        capabilities = { media = "hdd" }
        [backends.c]
        path = "/c"
        max_over_subscription = 20.0
        [backends.lvm]
        driver = "lvm"
        group = "vg0"
        [backends.many.pools.one]
        path = "/many/one"
        max_over_subscription = 2
        [backends.many.pools.two]
        path = "/many/two"
        """,
    ).backends
    ratios = {"a": 50.0, "b": 10.0, "c": 20.0, "lvm": 10.0, "many#one": 2.0, "many#two": 10.0}
    assert {name: each.max_over_subscription for name, each in found.items()} == ratios
    assert found["a"].capabilities == {"media": "ssd", "rack": 4}
    assert found["b"].capabilities == {"media": "hdd", "rack": 4}
    assert found["lvm"].autoextend_percent == 60  # type: ignore[union-attr]


def test_what_is_said_nowhere_is_as_ever(tmp_path: Path) -> None:
    assert read(tmp_path, '[backends.a]\npath = "/a"\n').backends["a"].max_over_subscription == 20.0
    assert read(tmp_path, "[backend_defaults]\nmax_over_subscription = 3\n").backends == {}


def test_a_volume_group_is_not_shared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a volume group belongs to one host"):
        read(tmp_path, '[backends.a]\ndriver = "lvm"\ngroup = "vg0"\ncluster_name = "c1"\n')


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("max_over_subscription = 0.5", "agent.toml:4: backend_defaults.max_over_subscription"),
        ('path = "/x"', "backend_defaults.path: is not a known key"),
        ("reserved_percents = 3", "Did you mean reserved_percent?"),
        ('cluster_name = "c"', "backend_defaults.cluster_name: is not a known key"),
    ],
)
def test_a_mistake_is_told_where_it_stands(tmp_path: Path, said: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, f'[backends.a]\npath = "/a"\n[backend_defaults]\n{said}\n')
    assert problem in f"{refused.value} {refused.value.remedy}"
